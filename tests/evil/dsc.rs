//! The real `dsc` with a home of its own.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::support::DEADLINE;
use crate::support::client::wait_until;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_dsc");

/// A home, and where its account is.
#[derive(Debug)]
pub(crate) struct Dsc {
    directory: tempfile::TempDir,
    pub(crate) user: String,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

/// Every file of a home.
pub(crate) type Snapshot = BTreeMap<PathBuf, Vec<u8>>;

impl Ran {
    /// Standard output of `--json`: one object a line.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.out.lines().map(|line| parse(line, &self.err)).collect()
    }

    /// The texts of the messages that were shown.
    pub(crate) fn texts(&self) -> Vec<String> {
        texts(&self.events())
    }

    /// The events of a kind.
    pub(crate) fn of(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == kind).collect()
    }

    /// The codes of what could not be opened.
    pub(crate) fn unreadable(&self) -> Vec<String> {
        self.of("unreadable").iter().map(|event| event["code"].as_str().unwrap().to_owned()).collect()
    }

    /// Must have ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "out:\n{}err:\n{}", self.out, self.err);
        self
    }

    /// Must have ended with this code and shown no message.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "out:\n{}err:\n{}", self.out, self.err);
        self
    }

    /// Must not have ended well.
    #[track_caller]
    pub(crate) fn refused(self) -> Ran {
        assert!(self.code != 0, "out:\n{}err:\n{}", self.out, self.err);
        self
    }
}

/// The texts of messages among events.
pub(crate) fn texts(events: &[Value]) -> Vec<String> {
    let texts = events.iter().filter(|event| event["event"] == "message");
    texts.filter_map(|event| event["content"]["text"].as_str().map(str::to_owned)).collect()
}

fn parse(line: &str, err: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON ({e}): {line}\n{err}"))
}

impl Dsc {
    /// An empty home, for an account that is not made yet.
    pub(crate) fn new(user: &str) -> Dsc {
        let mut builder = tempfile::Builder::new();
        builder.prefix("dsc-test-");
        // In memory where there is such a place: a program that is killed loses nothing that it has written,
        // on whatever it was written, and waiting for a disk would take most of the time of these tests.
        let directory = builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap();
        std::fs::write(directory.path().join("password"), format!("password-{user}\n")).unwrap();
        Dsc { directory, user: user.to_owned() }
    }

    /// A home with a registered account, its keys published, without a passphrase.
    pub(crate) fn register(user: &str, server: SocketAddr, pin: &str) -> Dsc {
        let dsc = Dsc::new(user);
        dsc.run_at(server, pin, &["register", "--no-passphrase"]).ok();
        dsc
    }

    /// Another home for an account that is there already.
    pub(crate) fn login(user: &str, server: SocketAddr, pin: &str) -> Dsc {
        let dsc = Dsc::new(user);
        dsc.run_at(server, pin, &["login", "--no-passphrase"]).ok();
        dsc
    }

    /// Runs a command with server, account, pin and password given.
    pub(crate) fn run_at(&self, server: SocketAddr, pin: &str, arguments: &[&str]) -> Ran {
        let mut command = self.command();
        command.args(["--json", "--server", &server.to_string(), "--user", &self.user]);
        command.arg("--pin").arg(format!("sha256:{pin}"));
        command.arg("--password-file").arg(self.path("password")).args(arguments);
        finish(command, b"")
    }

    /// A path beside the home, in its temporary directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The home.
    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// The binary with this home, and nothing inherited that could change what it does.
    pub(crate) fn command(&self) -> Command {
        self.command_of(BINARY)
    }

    /// The same, for a program that runs the binary: its path is the last argument so far.
    pub(crate) fn command_of(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.directory.path()).env("DSC_HOME", self.home()).env("LANG", "C.UTF-8");
        command.current_dir(self.directory.path());
        command
    }

    /// Runs a command with `--json`.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    /// Runs a command with `--json` and something on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command();
        command.arg("--json").args(arguments);
        finish(command, input.as_bytes())
    }

    /// Runs a command as a person would, without `--json`.
    pub(crate) fn plain(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command();
        command.args(arguments);
        finish(command, input)
    }

    /// The safety number with somebody, sixty digits.
    pub(crate) fn number(&self, user: &str) -> String {
        digits(&self.run(&["number", user]).ok())
    }

    /// Starts a command that goes on (`tail`, `pipe`), with `--json`.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command();
        command.arg("--json").args(arguments);
        Running::start(command)
    }

    /// `tail`, once it is connected and has shown what waited: from then on it only shows what comes.
    pub(crate) fn tail(&self) -> Running {
        self.start(&["tail"])
    }

    /// Every file of the home.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut files = Snapshot::new();
        read_files(&self.home(), &self.home(), &mut files);
        files
    }

    /// Puts every file of the home back as it was.
    pub(crate) fn restore(&self, snapshot: &Snapshot) {
        for name in self.snapshot().keys() {
            std::fs::remove_file(self.home().join(name)).unwrap();
        }
        for (name, bytes) in snapshot {
            write_private(&self.home().join(name), bytes);
        }
    }

    /// Another home with the same files, as a thief has it.
    pub(crate) fn stolen(&self) -> Dsc {
        let thief = Dsc::new(&self.user);
        make_private_directory(&thief.home());
        thief.restore(&self.snapshot());
        thief
    }

    /// Empties tables of the store by hand: each row is sealed on its own, so that nobody notices.
    pub(crate) fn erase(&self, tables: &[&str]) {
        let database = rusqlite::Connection::open(self.home().join("store.db")).unwrap();
        for table in tables {
            let rows = database.execute(&format!("DELETE FROM {table}"), []).unwrap();
            assert!(rows > 0, "{table} was empty");
        }
    }
}

fn make_private_directory(path: &Path) {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(path).unwrap();
}

fn write_private(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(parent) = path.parent() {
        make_private_directory(parent);
    }
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

fn read_files(base: &Path, directory: &Path, files: &mut Snapshot) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_files(base, &path, files);
        } else {
            files.insert(path.strip_prefix(base).unwrap().to_owned(), std::fs::read(&path).unwrap());
        }
    }
}

/// Runs a command to its end, which must come within the deadline.
pub(crate) fn finish(command: Command, input: &[u8]) -> Ran {
    let mut running = Running::start(command);
    if let Some(mut stdin) = running.input.take() {
        // A program that reads nothing may have ended already.
        let _ = stdin.write_all(input);
    }
    running.until_end()
}

/// A `dsc` that goes on until it is told to stop; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    complaints: Arc<Mutex<Vec<u8>>>,
    errors_ended: Receiver<()>,
    shown: Vec<String>,
    /// Events that no wait has taken yet.
    waiting: VecDeque<Value>,
}

impl Running {
    /// Starts a command.
    pub(crate) fn start(command: Command) -> Running {
        Running::start_on(command, Stdio::piped())
    }

    /// Starts a command that reads from somewhere.
    pub(crate) fn start_on(mut command: Command, input: Stdio) -> Running {
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let input = child.stdin.take();
        let (tell, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.split(b'\n') {
                let Ok(line) = line else { return };
                if tell.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let (ended, errors_ended) = channel();
        let (mut errors, kept) = (child.stderr.take().unwrap(), Arc::clone(&complaints));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = errors.read(&mut buffer) {
                kept.lock().unwrap().extend_from_slice(buffer.get(..n).unwrap_or_default());
            }
            drop(ended);
        });
        Running { child, input, lines, complaints, errors_ended, shown: Vec::new(), waiting: VecDeque::new() }
    }

    /// Types a line.
    #[allow(dead_code, reason = "the attacks type nothing, people who talk do")]
    pub(crate) fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).and_then(|()| input.flush()).unwrap();
    }

    /// Waits for an event that fits; the ones before it are passed over (and stay in [`Running::events`]).
    pub(crate) fn wait(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            while let Some(event) = self.waiting.pop_front() {
                if fits(&event) {
                    return event;
                }
            }
            let left = DEADLINE.saturating_sub(begun.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.took(line),
                Err(why) => panic!("never shown ({why}): {what}\n{}\n{}", self.shown.join("\n"), self.complaints()),
            }
        }
    }

    /// Waits until something with this in it is shown, in whatever form, on standard output or error.
    pub(crate) fn wait_shown(&mut self, text: &str) {
        wait_until(text, || {
            while let Ok(line) = self.lines.try_recv() {
                self.took(line);
            }
            self.shown.iter().any(|line| line.contains(text)) || self.complaints().contains(text)
        });
    }

    /// Waits for a message with this text.
    pub(crate) fn wait_text(&mut self, text: &str) -> Value {
        self.wait(text, |event| event["event"] == "message" && event["content"]["text"] == text)
    }

    /// Waits for something that cannot be opened; its code.
    pub(crate) fn wait_unreadable(&mut self) -> String {
        self.wait("something unreadable", |event| event["event"] == "unreadable")["code"].as_str().unwrap().to_owned()
    }

    fn took(&mut self, line: String) {
        if let Ok(event) = serde_json::from_str(&line) {
            self.waiting.push_back(event);
        }
        self.shown.push(line);
    }

    /// What it wrote on standard error.
    pub(crate) fn complaints(&self) -> String {
        String::from_utf8_lossy(&self.complaints.lock().unwrap()).into_owned()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// A value of /proc/PID/status in KiB.
    pub(crate) fn memory_kib(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// SIGTERM, and the end. (SIGINT would be ignored where the tests run in the background of a shell.)
    pub(crate) fn stop(self) -> Ran {
        rustix::process::kill_process(self.pid(), Signal::TERM).unwrap();
        self.until_end()
    }

    /// Ends its input, and waits for its end.
    pub(crate) fn until_end(mut self) -> Ran {
        self.input = None;
        let begun = Instant::now();
        loop {
            match self.lines.recv_timeout(DEADLINE.saturating_sub(begun.elapsed())) {
                Ok(line) => self.shown.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("dsc does not end:\n{}\n{}", self.shown.join("\n"), self.complaints())
                }
            }
        }
        let status = self.child.wait().unwrap();
        let _ = self.errors_ended.recv_timeout(DEADLINE);
        let out = self.shown.iter().map(|line| format!("{line}\n")).collect();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        let code = status.code().or(signal.map(|signal| 128 + signal)).unwrap();
        Ran { code, out, err: self.complaints() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The code that a new device shows, in whatever field it stands.
pub(crate) fn link_code(event: &Value) -> Option<String> {
    let text = event.to_string();
    let is_code =
        |word: &&str| word.replace('-', "").len() == 52 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).find(is_code).map(str::to_owned)
}

/// The sixty digits of a safety number, in whatever field they stand.
fn digits(ran: &Ran) -> String {
    let groups: Vec<&str> = ran.out.split(|c: char| !c.is_ascii_digit()).filter(|group| group.len() == 5).collect();
    assert!(groups.len() >= 12, "no safety number: {}", ran.out);
    groups[..12].concat()
}
