//! Figures, their medians, the table and the JSON.

use std::fmt::Write as _;
use std::time::Duration;

/// What one work gave, by name, in the order in which it is shown.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures(pub(crate) Vec<(String, f64)>);

impl Figures {
    pub(crate) fn set(&mut self, name: &str, value: f64) {
        self.0.push((name.to_owned(), value));
    }

    /// The middle and the hundredth of the slowest, in milliseconds.
    pub(crate) fn times(&mut self, times: &mut [Duration]) {
        times.sort_unstable();
        for (name, per_cent) in [("p50 ms", 50), ("p99 ms", 99)] {
            let at = (times.len() * per_cent / 100).min(times.len().saturating_sub(1));
            if let Some(time) = times.get(at) {
                self.set(name, time.as_secs_f64() * 1e3);
            }
        }
    }
}

/// All runs of one work on one server.
pub(crate) struct Row {
    pub(crate) work: String,
    pub(crate) server: String,
    pub(crate) runs: Vec<Figures>,
}

impl Row {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.runs.first().into_iter().flat_map(|run| run.0.iter().map(|(name, _)| name.as_str()))
    }

    fn values(&self, name: &str) -> Vec<f64> {
        let of = |run: &Figures| run.0.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        self.runs.iter().filter_map(of).collect()
    }

    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        let mut values = self.values(name);
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// What stands for the limit of a work.
const LIMITS: [&str; 3] = ["bare", "primitives", "openssl"];

/// The table: medians, and the ratio of the first figure to that of the other servers at the same work.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut out =
        String::from("| work | server | figures (medians) | to inspircd | to the limit |\n|---|---|---|---|---|\n");
    for row in rows {
        let figures: Vec<String> =
            row.names().filter_map(|name| row.median(name).map(|value| format!("{} {name}", short(value)))).collect();
        let ratio = |to: &[&str]| {
            let is_it = |other: &&Row| other.work == row.work && to.contains(&other.server.as_str());
            let first = row.names().next()?;
            Some(format!("{:.2} ×", row.median(first)? / rows.iter().find(is_it)?.median(first)?))
        };
        let or_none = |ratio: Option<String>| ratio.unwrap_or_else(|| "—".to_owned());
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            row.work,
            row.server,
            figures.join(", "),
            or_none(ratio(&["inspircd"])),
            or_none(ratio(&LIMITS)),
        );
    }
    out
}

/// Every value of every run.
pub(crate) fn json(rows: &[Row], machine: &str) -> String {
    let row = |row: &Row| {
        let figure = |name: &str| {
            let values: Vec<String> = row.values(name).iter().map(|value| format!("{value:.4}")).collect();
            let median = row.median(name).unwrap_or(0.0);
            format!("{}: {{\"median\": {median:.4}, \"runs\": [{}]}}", quoted(name), values.join(", "))
        };
        let figures: Vec<String> = row.names().map(figure).collect();
        format!(
            "    {{\"work\": {}, \"server\": {}, \"figures\": {{{}}}}}",
            quoted(&row.work),
            quoted(&row.server),
            figures.join(", ")
        )
    };
    let rows: Vec<String> = rows.iter().map(row).collect();
    format!("{{\n  \"machine\": {},\n  \"rows\": [\n{}\n  ]\n}}\n", quoted(machine), rows.join(",\n"))
}

fn quoted(text: &str) -> String {
    let escaped: String = text.chars().flat_map(char::escape_default).collect();
    format!("\"{escaped}\"")
}
