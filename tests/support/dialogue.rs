//! Runs a dialogue file against a real daemon, and tells like a diff where it went another way.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use super::client::{Identity, Options};
use super::pattern::{Captures, Pattern, substitute};
use super::script::{Act, Expected, Script, Step, expand, unescape};
use super::{Client, Daemon, Ended, Home, Link};

/// How many lines before the failing one are shown.
const CONTEXT: usize = 40;

/// Makes a connection.
pub(crate) type Connect<'a> = &'a dyn Fn(SocketAddr, &Options) -> Box<dyn Link>;

/// Runs the file at `path` through the tests' own client.
pub(crate) fn run(path: &Path) {
    run_through(path, &|address, options| Box::new(Client::raw(address, options)));
}

/// Runs the file at `path` with connections made by `connect`.
pub(crate) fn run_through(path: &Path, connect: Connect<'_>) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let script = Script::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let home = Home::new(&script.config);
    let daemon = home.start();
    let mut run = Run {
        home,
        daemon,
        connect,
        links: BTreeMap::new(),
        identities: BTreeMap::new(),
        captures: Captures::new(),
        told: VecDeque::new(),
        output: VecDeque::new(),
    };
    let mut current: Option<Step> = None;
    // A panic deep in a link should name the step as well.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for step in &script.steps {
            current = Some(step.clone());
            for n in 1..=step.times {
                run.step(step, (step.times > 1).then_some(n));
            }
        }
        current = None;
        run.finish();
    }));
    if let Err(panic) = outcome {
        let at = current.map_or("at the end".to_owned(), |step| format!("line {}: {}", step.line, step.source));
        eprintln!("--- {}, {at}", path.display());
        eprintln!("--- what was said before:\n{}", run.told.iter().map(|l| format!("  {l}\n")).collect::<String>());
        eprintln!("--- the daemon said:\n{}", run.daemon.log());
        resume_unwind(panic);
    }
}

struct Connection {
    link: Box<dyn Link>,
    /// Lines that were looked at and not taken.
    waiting: VecDeque<String>,
}

impl Connection {
    fn take(&mut self) -> Result<String, Ended> {
        match self.waiting.pop_front() {
            Some(line) => Ok(line),
            None => self.link.line(),
        }
    }
}

struct Run<'a> {
    home: Home,
    daemon: Daemon,
    connect: Connect<'a>,
    links: BTreeMap<String, Connection>,
    identities: BTreeMap<String, Identity>,
    captures: Captures,
    told: VecDeque<String>,
    /// What the last subcommand printed.
    output: VecDeque<String>,
}

impl Run<'_> {
    fn step(&mut self, step: &Step, n: Option<usize>) {
        let fill = |text: &str, captures: &Captures| substitute(&expand(text, n), captures);
        match &step.act {
            Act::New { name, options } => self.new_link(name, options),
            Act::User { names } => {
                for name in names {
                    self.new_link(name, &[]);
                    self.send(name, &format!("/register {name} password-{name}"));
                    self.expect(name, &format!("OK register user={name}"));
                }
            }
            Act::Session { name, user } => {
                self.new_link(name, &[]);
                self.send(name, &format!("/login {user} password-{user}"));
                self.expect(name, &format!("OK login user={user} unread=<NUM>"));
            }
            Act::Send { name, text } => {
                let text = fill(text, &self.captures);
                match name.as_str() {
                    "cli" => self.subcommand(&text),
                    name => self.send(name, &text),
                }
            }
            Act::Raw { name, text } => {
                let text = fill(text, &self.captures);
                self.tell(format!("{name}> {text}"));
                self.connection(name).link.send(&unescape(&text).unwrap());
            }
            Act::Expect { name, pattern, how } => {
                let pattern = expand(pattern, n);
                match (name.as_str(), how) {
                    ("cli", _) => self.expect_output(&pattern),
                    (name, Expected::Once) => self.expect(name, &pattern),
                    (name, Expected::Perhaps) => {
                        self.perhaps(name, &pattern);
                    }
                    (name, Expected::AnyNumber) => while self.perhaps(name, &pattern) {},
                }
            }
            Act::Quiet { names } => {
                for name in names {
                    self.quiet(name);
                }
            }
            Act::HalfClose { name } => self.connection(name).link.half_close(),
            Act::Close { name } => self.take_link(name).link.close(),
            Act::Kill { name } => self.take_link(name).link.kill(),
            Act::Closed { name } => {
                let mut connection = self.take_link(name);
                match connection.take() {
                    Err(Ended::Cleanly) => {}
                    Err(ended) => panic!("{name} should have been closed cleanly, but: {ended:?}"),
                    Ok(line) => panic!("{name} should have been closed\ngot: {line}"),
                }
            }
            Act::Assert { names } => {
                let value = |name: &String| -> u64 {
                    let text = self.captures.get(name).unwrap_or_else(|| panic!("nothing was captured as {name}"));
                    text.parse().unwrap_or_else(|_| panic!("{name} is {text}, which is no number"))
                };
                let values: Vec<u64> = names.iter().map(value).collect();
                assert!(values.is_sorted_by(|a, b| a < b), "{names:?} are {values:?}, which does not rise");
            }
            Act::File { name, content } => {
                std::fs::write(self.home.path(name), format!("{content}\n")).unwrap();
            }
            Act::Restart => {
                self.links.clear();
                self.daemon.stop();
                self.daemon = self.home.start();
            }
            Act::Stopped => {
                let status = self.daemon.wait();
                assert!(status.success(), "the daemon ended with {status}");
            }
            Act::Start => {
                self.links.clear();
                self.daemon = self.home.start();
            }
            Act::Crash => {
                self.daemon.kill();
                self.links.clear();
                self.daemon = self.home.start();
            }
        }
    }

    /// Whatever is still open must have nothing unexpected to say, and the daemon must be well.
    fn finish(&mut self) {
        assert!(self.output.is_empty(), "a subcommand also printed {:?}", self.output);
        let names: Vec<String> = self.links.keys().cloned().collect();
        for name in names {
            self.quiet(&name);
        }
        assert!(self.daemon.is_alive(), "the daemon ended");
        self.links.clear();
        self.daemon.stop();
    }

    fn new_link(&mut self, name: &str, options: &[String]) {
        let mut how = Options::default();
        let mut greeting = false;
        for option in options {
            match option.split_once('=') {
                None if option == "greeting" => greeting = true,
                Some(("tls", "1.2")) => how.tls12 = true,
                Some(("cert", label)) => {
                    let identity = self.identities.entry(label.to_owned()).or_insert_with(Identity::generate);
                    self.captures.insert(format!("cert-{label}"), identity.fingerprint());
                    how.identity = Some(identity.clone());
                }
                _ => panic!("unknown option {option}"),
            }
        }
        let link = (self.connect)(self.daemon.address(), &how);
        let replaced = self.links.insert(name.to_owned(), Connection { link, waiting: VecDeque::new() });
        assert!(replaced.is_none(), "{name} is open already");
        if !greeting {
            self.expect(name, "* hello downstream/1 ... :<TEXT>");
        }
    }

    fn connection(&mut self, name: &str) -> &mut Connection {
        self.links.get_mut(name).unwrap_or_else(|| panic!("no connection is called {name}"))
    }

    fn take_link(&mut self, name: &str) -> Connection {
        self.links.remove(name).unwrap_or_else(|| panic!("no connection is called {name}"))
    }

    fn send(&mut self, name: &str, text: &str) {
        self.tell(format!("{name}> {text}"));
        self.connection(name).link.send(format!("{text}\n").as_bytes());
    }

    fn expect(&mut self, name: &str, pattern: &str) {
        let parsed = Pattern::parse(pattern).unwrap();
        let line = match self.connection(name).take() {
            Ok(line) => line,
            Err(ended) => panic!("\n- {name}< {pattern}\n+ {name}  {ended:?}\n"),
        };
        let fits = parsed.matches(&line, &mut self.captures);
        if !fits {
            let known = substitute(pattern, &self.captures);
            panic!("\n- {name}< {}\n+ {name}< {}\n", short(&known), short(&line));
        }
        self.tell(format!("{name}< {line}"));
    }

    /// Takes the next line if it fits.
    fn perhaps(&mut self, name: &str, pattern: &str) -> bool {
        let parsed = Pattern::parse(pattern).unwrap();
        let line = match self.connection(name).take() {
            Ok(line) => line,
            Err(ended) => panic!("\n- {name}< {pattern} (perhaps), then something else\n+ {name}  {ended:?}\n"),
        };
        if parsed.matches(&line, &mut self.captures) {
            self.tell(format!("{name}< {line}"));
            return true;
        }
        self.connection(name).waiting.push_front(line);
        false
    }

    /// A command's answer comes next: everything caused before it was sent would have come first.
    fn quiet(&mut self, name: &str) {
        self.send(name, "/ping@quiet nothing else");
        self.expect(name, "OK ping@quiet :nothing else");
    }

    fn subcommand(&mut self, text: &str) {
        assert!(self.output.is_empty(), "the last subcommand also printed {:?}", self.output);
        self.tell(format!("cli> {text}"));
        let arguments: Vec<&str> = text.split_whitespace().collect();
        let done = self.home.run(&arguments);
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "downstream {text}: {}\n{out}{err}", done.status);
        self.output.extend(out.lines().map(str::to_owned));
    }

    fn expect_output(&mut self, pattern: &str) {
        let line = self.output.pop_front().unwrap_or_else(|| panic!("\n- cli< {pattern}\n+ (no more output)\n"));
        if !Pattern::parse(pattern).unwrap().matches(&line, &mut self.captures) {
            panic!("\n- cli< {pattern}\n+ cli< {line}\n");
        }
        self.tell(format!("cli< {line}"));
    }

    fn tell(&mut self, line: String) {
        if self.told.len() == CONTEXT {
            self.told.pop_front();
        }
        self.told.push_back(short(&line));
    }
}

/// A long line is not what a reader of a failure needs in full.
fn short(line: &str) -> String {
    const MOST: usize = 300;
    match line.char_indices().nth(MOST) {
        None => line.to_owned(),
        Some((at, _)) => format!("{}… ({} bytes)", line.get(..at).unwrap_or_default(), line.len()),
    }
}
