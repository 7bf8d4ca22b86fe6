//! How far a transfer is: a bar on a terminal, an event a second for programs, nothing where neither looks.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Output, escaped};
use crate::event::Event;

/// Between two events of one transfer.
const EVENT_EVERY: Duration = Duration::from_secs(1);
/// Name, bar, bytes, rate and time left. The name has a width of its own, so that it cannot push the rest away.
const TEMPLATE: &str = "{prefix:24!} [{wide_bar}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";

/// The progress of one transfer.
pub struct Progress(Shown);

enum Shown {
    Bar { bar: ProgressBar, begun: bool },
    Events { out: Output, name: String, total: u64, told: Option<Instant> },
    Nothing,
}

impl Progress {
    /// Of a transfer of `total` bytes.
    pub fn new(out: Output, name: &str, total: u64) -> Progress {
        if out.is_quiet() {
            return Progress(Shown::Nothing);
        }
        if out.is_json() {
            return Progress(Shown::Events { out, name: name.to_owned(), total, told: None });
        }
        // Where standard error is no terminal, it draws nothing.
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(escaped(name));
        Progress(Shown::Bar { bar, begun: false })
    }

    /// So many bytes are there now. What was there before the first call took no time.
    pub fn set(&mut self, bytes: u64) {
        match &mut self.0 {
            Shown::Bar { bar, begun } => {
                bar.set_position(bytes);
                if !std::mem::replace(begun, true) {
                    bar.reset_eta();
                }
            }
            Shown::Events { out, name, total, told } => {
                if told.is_some_and(|told| told.elapsed() < EVENT_EVERY) {
                    return;
                }
                *told = Some(Instant::now());
                // Output that was closed is noticed by the event at the end.
                let _ = out.show(&Event::Progress { name: name.clone(), done: bytes, total: *total });
            }
            Shown::Nothing => {}
        }
    }

    /// Does something that prints, with the bar out of the way.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.0 {
            Shown::Bar { bar, .. } => bar.suspend(work),
            Shown::Events { .. } | Shown::Nothing => work(),
        }
    }

    /// It is over, well or not: the bar goes, and the line that says how it ended stands alone.
    pub fn finish(&mut self) {
        if let Shown::Bar { bar, .. } = &self.0 {
            bar.finish_and_clear();
        }
        self.0 = Shown::Nothing;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
