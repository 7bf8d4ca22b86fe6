//! The real binary in a temporary directory.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::{Pid, Signal};

use super::DEADLINE;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_downstream");

/// What every test's daemon runs with, unless the test says otherwise: the cheapest Argon2 that is
/// allowed, and no rates, since the tests come from one address and in no human rhythm.
const BASE: &str = "
[accounts.argon2]
memory_kib = 8192
iterations = 1
[limits]
messages_per_second = 0
logins_per_minute = 0
registrations_per_hour = 0
connections_per_address = 0
";

/// How many of the daemon's log lines are kept for the message of a failing test.
const LOG_LINES: usize = 400;

/// A directory with configuration, certificates and data that survives the daemons started in it.
#[derive(Debug)]
pub(crate) struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    /// A fresh one, with `config` (TOML) laid over the base configuration.
    pub(crate) fn new(config: &str) -> Home {
        let directory = tempfile::Builder::new().prefix("downstream-test-").tempdir().unwrap();
        let home = Home { directory };
        home.configure(config);
        home
    }

    /// Writes the configuration anew, the whole at once: a daemon may be reading it.
    pub(crate) fn configure(&self, config: &str) {
        let mut table: toml::Table = BASE.parse().unwrap();
        let over: toml::Table =
            config.parse().unwrap_or_else(|e| panic!("the test's own configuration: {e}\n{config}"));
        merge(&mut table, over);
        std::fs::write(self.path("downstream.toml.new"), table.to_string()).unwrap();
        std::fs::rename(self.path("downstream.toml.new"), self.path("downstream.toml")).unwrap();
    }

    /// A path inside.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory itself.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Arguments that name this home's configuration and data.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        vec!["--config".into(), text(self.path("downstream.toml")), "--data".into(), text(self.path("data"))]
    }

    /// A command for the binary, in this directory, with nothing inherited that could change what it does.
    pub(crate) fn command(&self) -> Command {
        self.command_of(Path::new(BINARY))
    }

    fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory()).stdin(Stdio::null());
        for name in ["RUST_LOG", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY"]
        {
            command.env_remove(name);
        }
        command
    }

    /// Runs a subcommand to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(self.arguments()).args(arguments).output().unwrap()
    }

    /// Starts the daemon and waits until clients may connect.
    pub(crate) fn start(&self) -> Daemon {
        let mut command = self.command();
        command.args(self.serve_arguments());
        Daemon::start(command)
    }

    /// Like [`Home::start`], by way of a shell that runs `prelude` (limits, traps) first.
    pub(crate) fn start_under(&self, prelude: &str) -> Daemon {
        let mut command = self.command_of(Path::new("bash"));
        command.arg("-c").arg(format!("{prelude}; exec \"$@\"")).arg("bash").arg(BINARY).args(self.serve_arguments());
        Daemon::start(command)
    }

    /// Arguments of a daemon on a free port.
    pub(crate) fn serve_arguments(&self) -> Vec<String> {
        let mut arguments = self.arguments();
        arguments.extend(["--listen".into(), "127.0.0.1:0".into()]);
        arguments
    }
}

fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

type Lines = Arc<Mutex<VecDeque<String>>>;

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    address: SocketAddr,
    output: Lines,
    ended: Receiver<String>,
}

impl Daemon {
    /// Starts `command` and waits for its `listening on` line.
    pub(crate) fn start(mut command: Command) -> Daemon {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let output = Lines::default();
        let (announce, announced) = channel();
        drain("out", child.stdout.take().unwrap(), &output, announce);
        let (discard, _) = channel();
        drain("err", child.stderr.take().unwrap(), &output, discard);
        let begun = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(begun.elapsed());
            match announced.recv_timeout(left) {
                Ok(line) => {
                    if let Some(address) = line.strip_prefix("listening on ") {
                        let address = address.parse().unwrap_or_else(|e| panic!("{line:?}: {e}"));
                        return Daemon { child, address, output, ended: announced };
                    }
                }
                Err(why) => {
                    let _ = child.kill();
                    let status = child.wait();
                    panic!("the daemon did not come up ({why}, {status:?}):\n{}", text(&output));
                }
            }
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Everything it printed and logged lately.
    pub(crate) fn log(&self) -> String {
        text(&self.output)
    }

    /// kill -9, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        // Its standard output closes when it ends, which is a thing one can wait for with a deadline.
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            match self.ended.recv_timeout(DEADLINE.saturating_sub(begun.elapsed())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        panic!("the daemon did not end:\n{}", self.log());
    }

    /// SIGTERM, and waits for the end, which must be a good one.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "after SIGTERM: {status}\n{}", self.log());
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// A value of /proc/PID/status in KiB, such as `VmRSS` or `VmHWM` (the most there was).
    pub(crate) fn memory_kib(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the daemon said:\n{}", self.log());
        }
    }
}

fn text(lines: &Lines) -> String {
    let lines = lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Keeps what `stream` says, so that it never blocks on a full pipe, and tells it line by line.
fn drain(
    label: &'static str,
    stream: impl Read + Send + 'static,
    lines: &Lines,
    tell: std::sync::mpsc::Sender<String>,
) {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).into_owned();
            let mut kept = lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if kept.len() == LOG_LINES {
                kept.pop_front();
            }
            kept.push_back(format!("{label}: {line}"));
            drop(kept);
            let _ = tell.send(line);
        }
    });
}
