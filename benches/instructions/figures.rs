//! The committed figures, and Callgrind's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::Failure;

/// What was counted, and with what.
pub(crate) struct Figures {
    /// The compiler and the kind of processor: both decide which instructions there are.
    pub(crate) tools: String,
    /// Instructions of each work.
    pub(crate) counts: BTreeMap<String, u64>,
}

impl Figures {
    /// Reads the file; one that is not there has no figures.
    pub(crate) fn read(path: &Path) -> Result<Figures, Failure> {
        if !path.exists() {
            return Ok(Figures { tools: String::new(), counts: BTreeMap::new() });
        }
        let text = std::fs::read_to_string(path)?;
        let table: toml::Table = text.parse()?;
        let tools = table.get("tools").and_then(toml::Value::as_str).ok_or("no `tools`")?.to_owned();
        let counts = table.get("instructions").and_then(toml::Value::as_table).ok_or("no `instructions`")?;
        let count = |value: &toml::Value| value.as_integer().and_then(|count| u64::try_from(count).ok());
        let counts = counts.iter().map(|(name, value)| Some((name.clone(), count(value)?)));
        let counts = counts.collect::<Option<_>>().ok_or("a figure is no number")?;
        Ok(Figures { tools, counts })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let mut text = String::from(
            "# Instructions of the works of benches/instructions, counted by Callgrind.\n\
             # Written by: scripts/bench.sh --check --update\n\n",
        );
        write!(text, "tools = \"{}\"\n\n[instructions]\n", self.tools)?;
        for (name, count) in &self.counts {
            writeln!(text, "{name} = {count}")?;
        }
        Ok(std::fs::write(path, text)?)
    }
}

/// The first line of what a program says to an option.
fn says(program: &str, option: &str) -> Result<String, Failure> {
    let output = Command::new(program).arg(option).output().map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// What the counts depend on beside the code.
pub(crate) fn tools() -> Result<String, Failure> {
    let rustc = says("rustc", "--version")?;
    let rustc: Vec<&str> = rustc.split(' ').take(2).collect();
    Ok(format!("{}, {}, {}", rustc.join(" "), says("valgrind", "--version")?, std::env::consts::ARCH))
}

/// All instructions in a profile of Callgrind.
pub(crate) fn total(path: &Path) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    let line = line.ok_or_else(|| format!("no total in {}", path.display()))?;
    Ok(line.split(' ').next().unwrap_or_default().parse()?)
}
