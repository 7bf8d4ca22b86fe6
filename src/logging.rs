//! The log: lines on standard error, with journal priorities under systemd.

use std::io::Write as _;

use log::{Level, LevelFilter, Record};
use rustix::fs::fstat;

pub use crate::protocol::text::{Escaped, escaped};

/// The level without `RUST_LOG`: connections, logins, failures and administration, no debugging.
const DEFAULT_LEVEL: LevelFilter = LevelFilter::Info;

/// Starts the log. `RUST_LOG` chooses levels, as in `RUST_LOG=debug` or
/// `RUST_LOG=warn,downstream::store=debug`. A second call changes nothing.
pub fn start() {
    let journal = stderr_is_journal();
    let mut builder = env_logger::Builder::new();
    builder.filter_level(DEFAULT_LEVEL).parse_default_env().format(move |out, record| {
        let line = if journal { journal_line(record) } else { plain_line(record) };
        out.write_all(line.as_bytes())
    });
    // Fails only where a log is there already, which then goes on.
    let _ = builder.try_init();
}

/// Whether standard error goes to the journal, as sd_journal_stream_fd(3) says to find out: the
/// variable holds device and inode of the stream, and a redirected stream has others.
fn stderr_is_journal() -> bool {
    let Some(named) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(stream) = fstat(std::io::stderr()) else { return false };
    named.to_str() == Some(format!("{}:{}", stream.st_dev, stream.st_ino).as_str())
}

/// A line for the journal, which adds the time itself: `<N>` is the syslog priority (sd-daemon(3)).
fn journal_line(record: &Record<'_>) -> String {
    let priority = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    format!("<{priority}>{}\n", escaped(&record.args().to_string()))
}

fn plain_line(record: &Record<'_>) -> String {
    let now = jiff::Timestamp::now();
    format!("{now:.3} {:<5} {}\n", record.level(), escaped(&record.args().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_level_for_people_and_its_priority_for_the_journal() {
        let line = |level, form: fn(&Record<'_>) -> String| {
            form(&Record::builder().level(level).args(format_args!("c7 login failed for \"a\nb\"")).build())
        };
        assert_eq!(line(Level::Error, journal_line), "<3>c7 login failed for \"a\\nb\"\n");
        assert_eq!(line(Level::Warn, journal_line), "<4>c7 login failed for \"a\\nb\"\n");
        assert_eq!(line(Level::Info, journal_line), "<6>c7 login failed for \"a\\nb\"\n");
        assert_eq!(line(Level::Debug, journal_line), "<7>c7 login failed for \"a\\nb\"\n");
        let plain = line(Level::Warn, plain_line);
        let (time, rest) = plain.split_once(' ').expect("a time first");
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{plain}");
        assert_eq!(rest, "WARN  c7 login failed for \"a\\nb\"\n");
    }
}
