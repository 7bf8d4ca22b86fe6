//! The scene of an attack: a daemon, the relay before it, and who takes part.

use std::collections::BTreeMap;

use crate::common::e2e::armour::{base64, unbase64};
use crate::common::e2e::name::DeviceId;
use crate::evil::forge::BundleParts;
use crate::evil::lab::{Keys, Lab};
use crate::evil::relay::{Caught, Evil, Verdict, Way};
use crate::evil::{Dsc, dsc};
use crate::support::{Client, Daemon, Home, Link as _};

/// A daemon and the relay before it.
pub(crate) struct Stage {
    pub(crate) evil: Evil,
    pub(crate) daemon: Daemon,
    pub(crate) home: Home,
}

impl Stage {
    /// With the tests' usual configuration.
    pub(crate) fn new() -> Stage {
        Stage::with("")
    }

    /// With a daemon that logs whatever it can.
    pub(crate) fn talkative() -> Stage {
        let home = Home::new("");
        let mut command = home.command();
        command.args(home.serve_arguments()).env("RUST_LOG", "trace");
        let daemon = Daemon::start(command);
        let evil = Evil::before(daemon.address());
        Stage { evil, daemon, home }
    }

    /// With configuration laid over it.
    pub(crate) fn with(config: &str) -> Stage {
        let home = Home::new(config);
        let daemon = home.start();
        let evil = Evil::before(daemon.address());
        Stage { evil, daemon, home }
    }

    /// A registered account behind the relay, driven by the real `dsc`.
    pub(crate) fn dsc(&self, user: &str) -> Dsc {
        Dsc::register(user, self.evil.address(), self.evil.pin())
    }

    /// A second device of an account, linked by its first.
    pub(crate) fn linked(&self, first: &Dsc) -> Dsc {
        let second = Dsc::login(&first.user, self.evil.address(), self.evil.pin());
        let mut waiting = second.start(&["link"]);
        let code = waiting.wait("a code", |event| dsc::link_code(event).is_some());
        let code = dsc::link_code(&code).unwrap();
        first.run(&["--yes", "link", "--approve", &code]).ok();
        waiting.until_end().ok();
        second
    }

    /// A registered account without keys.
    pub(crate) fn account(&self, user: &str) -> Client {
        let mut client = Client::connect(self.daemon.address());
        client.ask(&format!("/register {user} password-{user}"), "OK register ...");
        client
    }

    /// A registered account without a relay, in the test's own hands.
    pub(crate) fn lab(&self, user: &str, seed: u64) -> Lab {
        Lab::register(self.daemon.address(), user, seed)
    }

    /// The malicious server's own hand: a connection in the name of an account, without its keys. What it
    /// posts is what the server says that the account has said.
    pub(crate) fn puppet(&self, user: &str) -> Client {
        let mut client = Client::connect(self.daemon.address());
        client.ask("/ack manual", "OK ack ...");
        client.ask(&format!("/login {user} password-{user}"), "OK login ...");
        client
    }

    /// Says in the name of `user` what somebody sealed.
    pub(crate) fn post(&self, user: &str, to: &str, body: &str) {
        let mut client = self.puppet(user);
        client.say(&format!("/msg {to} {body}"));
        client.until("OK msg ...");
    }

    /// Signals in the name of `user`.
    pub(crate) fn post_signal(&self, user: &str, to: &str, body: &str) {
        let mut client = self.puppet(user);
        client.say(&format!("/signal {to} {body}"));
        client.until("OK signal ...");
    }

    /// Every message and signal that `user` has given to the server through the relay.
    pub(crate) fn sent_by(&self, user: &str) -> Vec<Caught> {
        let of_user = |caught: &Caught| caught.way == Way::Up && caught.user == user && is_sending(caught);
        self.evil.captured().into_iter().filter(of_user).collect()
    }

    /// The bodies of the messages (not signals) of `user` to `target`.
    pub(crate) fn bodies(&self, user: &str, target: &str) -> Vec<String> {
        let sent = self.sent_by(user);
        let to_target =
            sent.iter().filter(|caught| caught.verb() != "/signal" && caught.words().get(1) == Some(&target));
        to_target.map(|caught| caught.body().unwrap().to_owned()).collect()
    }

    /// The last of [`Stage::bodies`].
    pub(crate) fn body(&self, user: &str, target: &str) -> String {
        self.bodies(user, target).pop().unwrap_or_else(|| panic!("{user} has sent nothing to {target}"))
    }

    /// How many signals `user` has sent to `to`.
    pub(crate) fn signals(&self, user: &str, to: &str) -> usize {
        let sent = self.sent_by(user);
        sent.iter().filter(|caught| caught.verb() == "/signal" && caught.words().get(1) == Some(&to)).count()
    }
}

/// The rows of a command and its reply.
pub(crate) fn asked(client: &mut Client, command: &str) -> Vec<String> {
    client.say(command);
    let mut lines = Vec::new();
    loop {
        let line = client.line().unwrap_or_else(|ended| panic!("{ended:?}\n{}", client.transcript()));
        let last = line.starts_with("OK ") || line.starts_with("ERR ");
        lines.push(line);
        if last {
            return lines;
        }
    }
}

/// Whether a command says something to somebody.
pub(crate) fn is_sending(caught: &Caught) -> bool {
    matches!(caught.verb(), "/msg" | "/post" | "/signal") || !caught.line.starts_with('/')
}

/// A key directory that the server makes up for an account.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) user: String,
    pub(crate) list: Vec<u8>,
    /// Certificate and bundle of each device.
    pub(crate) devices: Vec<(DeviceId, Vec<u8>, Vec<u8>)>,
}

impl Directory {
    /// One device whose keys the server has made itself.
    pub(crate) fn of(keys: &mut Keys) -> Directory {
        let mut directory =
            Directory { user: keys.me.user().to_string(), list: keys.list.bytes().to_vec(), devices: Vec::new() };
        let bundle = keys.bundle();
        directory.add(keys.id(), keys.me.cert().bytes(), bundle);
        directory
    }

    /// What a client has published through the relay, without its one-time keys.
    pub(crate) fn published(evil: &Evil, user: &str) -> Directory {
        let mut records = BTreeMap::new();
        let mut device = None;
        for caught in evil.captured().iter().filter(|caught| caught.user == user && caught.is_command("/keys")) {
            if let [_, "put", record] = caught.words()[..] {
                let raw = unbase64(record).unwrap();
                device = Some(DeviceId(raw[2..18].try_into().unwrap()));
                records.insert(raw[1], raw[18..].to_vec());
            }
        }
        let parts = BundleParts {
            cert: records[&0x10].clone(),
            spk: records[&0x12].clone(),
            opk: None,
            pq_kind: 1,
            pqk: records[&0x15].clone(),
        };
        let mut directory = Directory { user: user.to_owned(), list: records[&0x11].clone(), devices: Vec::new() };
        directory.add(device.unwrap(), &parts.cert, parts.bytes());
        directory
    }

    /// Adds a device.
    pub(crate) fn add(&mut self, device: DeviceId, cert: &[u8], bundle: Vec<u8>) {
        self.devices.push((device, cert.to_vec(), bundle));
    }

    /// The answer to a `/keys get` of this account.
    pub(crate) fn answer(&self, command: &Caught) -> Option<Verdict> {
        let words = command.words();
        if !command.is_command("/keys") || words.get(1..3) != Some(&["get", &self.user]) {
            return None;
        }
        let wanted = words.iter().find_map(|word| word.strip_prefix("device="));
        let certs = words.contains(&"only=certs");
        let is_wanted = |id: &DeviceId| wanted.is_none_or(|wanted| wanted == id.to_string());
        // Asked for a device that this directory does not have, a liar shows those that it has.
        let known = self.devices.iter().any(|(id, ..)| is_wanted(id));
        let devices = self.devices.iter().filter(|(id, ..)| !known || is_wanted(id));
        let mut lines = vec![format!("- devices {} {}", self.user, base64(&self.list))];
        lines.extend(devices.map(|(id, cert, bundle)| {
            let (kind, bytes) = if certs { ("cert", cert) } else { ("keys", bundle) };
            format!("- {kind} {} {id} {}", self.user, base64(bytes))
        }));
        lines.push(format!("OK keys{{label}} user={} devices={}", self.user, lines.len() - 1));
        Some(Verdict::Answer(lines))
    }
}

/// A script that shows these directories and is honest otherwise.
pub(crate) fn show(directories: Vec<Directory>) -> impl FnMut(&Caught) -> Verdict + Send + 'static {
    move |caught| directories.iter().find_map(|directory| directory.answer(caught)).unwrap_or(Verdict::Pass)
}
