//! How far files are: a bar on a terminal, a few lines a second for programs, nothing in between.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Output, escaped};
use crate::error::Failure;
use crate::event::{Event, Phase};

/// Between two lines of `--json` about one file: four a second are as smooth as anybody looks.
const EVERY: Duration = Duration::from_millis(250);
/// Columns of a name beside its bar.
const NAME_COLUMNS: usize = 24;

/// Shows events, and of progress as much as is of use.
pub struct Progress {
    out: Output,
    /// What is shown now, since when for programs, and its bar on a terminal.
    current: Option<Current>,
}

struct Current {
    phase: Phase,
    target: String,
    name: String,
    told: Instant,
    bar: ProgressBar,
}

impl Progress {
    /// On the terminal or for the program of `out`.
    pub fn new(out: Output) -> Progress {
        Progress { out, current: None }
    }

    /// Shows one event, at once.
    ///
    /// # Errors
    /// As [`Output::show`].
    pub fn show(&mut self, event: &Event) -> Result<(), Failure> {
        let Event::Progress { phase, target, name, done, size } = event else {
            let over = matches!(event, Event::FileSent { .. } | Event::FileReceived { .. } | Event::Error { .. });
            return match self.current.take_if(|_| over) {
                Some(current) => {
                    current.bar.finish_and_clear();
                    self.out.show(event)
                }
                None => match &self.current {
                    Some(current) => current.bar.suspend(|| self.out.show(event)),
                    None => self.out.show(event),
                },
            };
        };
        let same = |current: &Current| (&current.phase, &current.target, &current.name) == (phase, target, name);
        let now = Instant::now();
        let due = match &mut self.current {
            Some(current) if same(current) => {
                current.bar.set_position(*done);
                let due = now.duration_since(current.told) >= EVERY || *size == Some(*done);
                if due {
                    current.told = now;
                }
                due
            }
            _ => {
                if let Some(before) = self.current.take() {
                    before.bar.finish_and_clear();
                }
                let bar = self.bar(*phase, name, *done, *size);
                let (target, name) = (target.clone(), name.clone());
                self.current = Some(Current { phase: *phase, target, name, told: now, bar });
                true
            }
        };
        if due && self.out.is_json() { self.out.show(event) } else { Ok(()) }
    }

    fn bar(&self, phase: Phase, name: &str, done: u64, size: Option<u64>) -> ProgressBar {
        let bar = match size {
            _ if self.out.is_json() || self.out.is_quiet() => return ProgressBar::hidden(),
            Some(size) => ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr()),
            None => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
        };
        let template = match size {
            Some(_) => "{prefix} {msg} {bytes}/{total_bytes} [{bar:24}] {bytes_per_sec}, {eta} left",
            None => "{prefix} {msg} {bytes} {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(match phase {
            Phase::Reading => "reading",
            Phase::Sending => "sending",
            Phase::Receiving => "receiving",
        });
        bar.set_message(shortened(&escaped(name)));
        // Where it begins is no work of now: the rate counts from here.
        bar.set_position(done);
        bar.reset_eta();
        bar
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(current) = self.current.take() {
            current.bar.finish_and_clear();
        }
    }
}

/// A name within its columns, its end in view: there stands which part or version it is.
fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= NAME_COLUMNS {
        return name.to_owned();
    }
    let half = NAME_COLUMNS / 2;
    let (begin, end): (String, String) =
        (name.chars().take(half).collect(), name.chars().skip(count - (NAME_COLUMNS - half - 1)).collect());
    format!("{begin}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_show_both_ends() {
        assert_eq!(shortened("report.pdf"), "report.pdf");
        let short = shortened("a very long name of some file, part 17.tar");
        assert_eq!(short, "a very long …part 17.tar");
        assert_eq!(short.chars().count(), NAME_COLUMNS);
    }
}
