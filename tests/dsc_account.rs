//! `dsc` and a daemon, one command at a time: registering, logging in and out, tokens, passwords and
//! passphrases, what the server answers to who needs no keys, and whom `dsc` believes to be the server.
#![cfg(all(feature = "daemon", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use support::{Client, Daemon, Home};

/// A daemon, and homes of `dsc` in its directory.
struct Place {
    home: Home,
    daemon: Daemon,
}

impl Place {
    fn new(config: &str) -> Place {
        let home = Home::new(config);
        let daemon = home.start();
        let place = Place { home, daemon };
        place.secret("pw", "secret password \"1\"\n");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    /// A file for its owner alone.
    fn secret(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// `dsc` with the home of this name, without a terminal.
    fn command(&self, who: &str) -> Command {
        let mut command = Command::new("setsid");
        command.arg("--wait").arg(env!("CARGO_BIN_EXE_dsc")).current_dir(self.home.directory());
        command.env("DSC_HOME", self.path(&format!("{who}.dsc"))).env_remove("NO_COLOR").stdin(Stdio::null());
        command
    }

    fn run(&self, who: &str, line: &str) -> Output {
        self.command(who).args(line.split_whitespace()).output().unwrap()
    }

    /// Standard output of what must succeed.
    fn done(&self, who: &str, line: &str) -> String {
        let output = self.run(who, line);
        assert_eq!(output.status.code(), Some(0), "{who}: {line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Standard error of what must fail with an exit code.
    fn failed(&self, who: &str, line: &str, exit: i32) -> String {
        let output = self.run(who, line);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{who}: {line}: {errors}");
        assert!(!errors.contains("panicked") && !errors.contains("secret password"), "{errors}");
        errors
    }

    /// An account of this name, with keys, in the home of this name.
    fn register(&self, who: &str) {
        let server = self.daemon.address();
        self.done(who, &format!("register --server {server} --user {who} --password-file pw --no-passphrase"));
    }

    /// The same account, by hand.
    fn by_hand(&self, who: &str) -> Client {
        let mut client = Client::connect(self.daemon.address());
        client.ask(&format!("/login {who} \"secret password \\\"1\\\"\""), &format!("OK login user={who} unread=0"));
        client
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn after_registering_no_option_is_needed() {
    let place = Place::new("");
    let server = place.daemon.address();
    let output =
        place.run("alice", &format!("register --server {server} --user Alice --password-file pw --no-passphrase"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let notices = text(&output.stderr);
    for said in
        ["first contact with", "its certificate is sha256:", "gets no passphrase: whoever", "alice is registered"]
    {
        assert!(notices.contains(said), "{said}: {notices}");
    }
    let settings = std::fs::read_to_string(place.path("alice.dsc/dsc.toml")).unwrap();
    assert!(settings.ends_with(&format!("\nserver = \"{server}\"\nuser = \"alice\"\n")), "{settings}");
    let whoami = place.done("alice", "whoami");
    assert!(whoami.starts_with(&format!("alice on {server}: device ")), "{whoami}");
    assert!(whoami.ends_with("logged in, confirmed by the server\n"), "{whoami}");
    // The server lists one token, and nobody's password or token is anywhere in the home.
    let mut alice = place.by_hand("alice");
    alice.ask("/tokens", "- token dsc-<WORD:name> created=<TIME> used=<TIME>");
    for file in std::fs::read_dir(place.path("alice.dsc")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for secret in ["secret password", "token:"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
    // What a person wrote stays when the settings are written again.
    std::fs::write(place.path("alice.dsc/dsc.toml"), format!("# mine\nuser='alice'\nserver='{server}' # here\n"))
        .unwrap();
    place.done("alice", "login --password-file pw");
    let settings = std::fs::read_to_string(place.path("alice.dsc/dsc.toml")).unwrap();
    assert_eq!(settings, format!("# mine\nuser=\"alice\"\nserver=\"{server}\" # here\n"));
}

#[test]
fn registering_is_refused_before_anybody_is_asked_for_a_password() {
    let place = Place::new("[accounts]\nregistration = \"closed\"\n");
    let server = place.daemon.address();
    let arguments = format!("register --server {server} --user alice");
    let errors = place.failed("alice", &arguments, 6);
    assert!(errors.contains("takes no registrations") && errors.contains("dsc login"), "{errors}");
    drop(place);

    let place = Place::new("[accounts]\nregistration = \"invite\"\n");
    let server = place.daemon.address();
    let arguments = format!("register --server {server} --user alice --no-passphrase --password-file pw");
    let errors = place.failed("alice", &arguments, 2);
    assert!(errors.contains("by invitation only") && errors.contains("--invite CODE"), "{errors}");
    let errors = place.failed("alice", &format!("{arguments} --invite wrong"), 6);
    assert!(errors.contains("registration-closed") && errors.contains("7 days"), "{errors}");
    let invite = place.home.run(&["invite"]);
    let arguments = format!("{arguments} --invite {}", text(&invite.stdout).trim());
    place.done("alice", &arguments);
    assert!(place.done("alice", "whoami").contains("confirmed"));
}

#[test]
fn what_the_server_says_of_names_and_passwords() {
    let place = Place::new("");
    place.register("alice");
    let server = place.daemon.address();
    let errors = place.failed(
        "other",
        &format!("register --server {server} --user alice --no-passphrase --password-file pw"),
        6,
    );
    assert!(errors.contains("name-taken") && errors.contains("if the account is yours, `dsc login`"), "{errors}");
    place.secret("short", "short\n");
    let errors =
        place.failed("bob", &format!("register --server {server} --user bob --no-passphrase --password-file short"), 6);
    assert!(errors.contains("weak-password") && errors.contains("another password"), "{errors}");
    place.secret("wrong", "another-password\n");
    let errors = place.failed(
        "third",
        &format!("login --server {server} --user alice --no-passphrase --password-file wrong"),
        6,
    );
    assert!(errors.contains("auth-failed") && errors.contains("right name and password"), "{errors}");
    // A home is one account's.
    let errors = place.failed("alice", "whoami --user bob", 1);
    assert!(errors.contains("belongs to the account alice"), "{errors}");
    let errors = place.failed("alice", "login --user bob --password-file pw", 1);
    assert!(errors.contains("belongs to the account alice"), "{errors}");
}

#[test]
fn logging_out_gives_the_token_back() {
    let place = Place::new("");
    place.register("alice");
    place.done("alice", "logout");
    // Each time a new session, as the others hear of every login.
    let ask = |line: &str, answer: &str| place.by_hand("alice").ask(line, answer);
    ask("/tokens", "OK tokens count=0");
    // Without a token the password is asked for, here in vain; the keys are there still.
    assert!(place.failed("alice", "users", 2).contains("use --password-file FILE"));
    assert_eq!(place.done("alice", "users --password-file pw"), "alice online\n");
    assert!(place.failed("alice", "logout", 1).contains("nobody is logged in here"));
    let whoami = place.done("alice", "whoami");
    assert!(whoami.contains("device ") && whoami.contains("no token"), "{whoami}");
    let device = whoami.split("device ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    place.done("alice", "login --password-file pw");
    assert!(place.done("alice", "whoami").contains(&device), "the same device");
    // Another login's token takes the place of the one before.
    let first = ask("/tokens", "- token <WORD:name> created=<TIME> used=<TIME>")["name"].clone();
    place.done("alice", "login --password-file pw");
    let second = ask("/tokens", "- token <WORD:name> created=<TIME> used=never")["name"].clone();
    ask(&format!("/revoke {first}"), "ERR revoke not-found :<TEXT>");
    // A token that was taken back elsewhere is said to be so, and logging out is done then.
    ask(&format!("/revoke {second}"), "OK revoke<REST>");
    let errors = place.failed("alice", "users", 6);
    assert!(errors.contains("does not take the kept token any more") && errors.contains("dsc login"), "{errors}");
    let whoami = place.run("alice", "whoami");
    assert!(whoami.status.success() && !text(&whoami.stdout).contains("confirmed by"));
    place.done("alice", "logout");
}

#[test]
fn a_new_password_comes_with_a_new_token() {
    let place = Place::new("");
    place.register("alice");
    place.secret("change", "secret password \"1\"\nsecond  password\\\n");
    place.secret("one", "secret password \"1\"\n");
    assert!(place.failed("alice", "passwd --password-file one", 1).contains("the line is empty"));
    place.done("alice", "passwd --password-file change");
    assert_eq!(place.done("alice", "users"), "alice online\n", "the new token is used");
    assert!(place.failed("alice", "passwd --password-file change", 6).contains("auth-failed"));
    place.secret("new", "second  password\\\n");
    place.done("alice", "login --password-file new");
}

#[test]
fn the_passphrase_opens_the_store_and_can_be_changed() {
    let place = Place::new("");
    let server = place.daemon.address();
    place.secret("pp", "correct horse\n");
    let register = format!("register --server {server} --user alice --password-file pw --passphrase-file pp");
    place.done("alice", &register);
    assert!(place.done("alice", "whoami --passphrase-file pp").contains("confirmed"));
    let errors = place.failed("alice", "whoami", 2);
    assert!(errors.contains("--passphrase-file FILE"), "{errors}");
    place.secret("bad", "wrong\n");
    assert!(place.failed("alice", "whoami --passphrase-file bad", 1).contains("wrong passphrase"));
    // By an open descriptor, from a pipe and from a file; and by standard input.
    let dsc = env!("CARGO_BIN_EXE_dsc");
    for line in [
        format!("'{dsc}' whoami --pass-fd 3 3< pp"),
        format!("'{dsc}' whoami --pass-fd 4 4< <(cat pp)"),
        format!("'{dsc}' whoami --pass-fd 0 < pp"),
        format!("cat pp | '{dsc}' --passphrase-file - whoami"),
    ] {
        let mut bash = Command::new("bash");
        bash.args(["-c", &line]).current_dir(place.home.directory()).env("DSC_HOME", place.path("alice.dsc"));
        let output = bash.output().unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    }
    assert!(place.failed("alice", "whoami --pass-fd 9", 1).contains("/dev/fd/9"));
    place.secret("change", "correct horse\nbattery staple\n");
    place.done("alice", "passphrase --passphrase-file change");
    assert!(place.failed("alice", "whoami --passphrase-file pp", 1).contains("wrong passphrase"));
    place.secret("pp", "battery staple\n");
    place.done("alice", "whoami --passphrase-file pp");
    let errors = place.failed("alice", "passphrase --remove --passphrase-file pp", 2);
    assert!(errors.contains("--yes"), "{errors}");
    place.done("alice", "passphrase --remove --passphrase-file pp --yes");
    place.done("alice", "whoami");
    assert!(place.failed("alice", "whoami --passphrase-file pp", 1).contains("has no passphrase"));
    place.done("alice", "passphrase --passphrase-file pp");
    place.done("alice", "whoami --passphrase-file pp");
}

#[test]
fn what_needs_no_keys() {
    let place = Place::new("");
    for who in ["alice", "bob"] {
        place.register(who);
    }
    let mut bob = place.by_hand("bob");
    bob.ask("/create #plain :what we do", "OK create room=#plain<REST>");
    bob.ask("/msg alice hello", "OK msg id=1 <REST>");
    bob.ask("/away at lunch", "OK away<REST>");
    assert_eq!(place.done("alice", "users"), "alice online\nbob online\n");
    assert_eq!(place.done("alice", "users b*"), "bob online\n");
    let who = place.done("alice", "who bob");
    assert!(who.starts_with("bob away since ") && who.ends_with(": at lunch\n"), "{who}");
    assert!(place.failed("alice", "who nobody", 6).contains("no-such-user"));
    assert_eq!(place.done("alice", "unread"), "bob 1 unread, 1 to 1\n");
    assert_eq!(place.done("alice", "unread"), "bob 1 unread, 1 to 1\n", "looking is not reading");
    let json: serde_json::Value = serde_json::from_str(&place.done("alice", "unread --json")).unwrap();
    assert_eq!((&json["list"], &json["count"]), (&"unread".into(), &1.into()));
    assert_eq!(place.done("bob", "topic plain"), "#plain: what we do\n");
    place.done("bob", "topic plain another  thing");
    assert_eq!(place.done("bob", "topic #plain"), "#plain: another thing\n");
    assert!(place.failed("alice", "topic plain", 6).contains("not-member"));
    assert!(place.done("bob", "who #plain").starts_with("bob away since "));
    let mut carol = Client::connect(place.daemon.address());
    carol.ask("/register carol password-carol", "OK register user=carol");
    place.by_hand("bob").ask("/ban #plain carol", "OK ban<REST>");
    carol.expect("* ban #plain carol bob");
    carol.ask("/join #plain", "ERR join banned :<TEXT>");
    place.done("bob", "unban plain carol");
    carol.ask("/join #plain", "OK join<REST>");
    place.done("bob", "away for a walk");
    carol.ask("/who bob", "- user bob away since=<TIME> :for a walk");
    carol.expect("OK who<REST>");
    place.done("bob", "back");
    carol.ask("/who bob", "- user bob online since=<TIME>");
}

#[test]
fn a_changed_certificate_stops_everything() {
    let mut place = Place::new("");
    place.register("alice");
    let before = place.daemon.address();
    let pinned = std::fs::read_to_string(place.path("alice.dsc/known_servers")).unwrap();
    let pin = pinned.lines().last().unwrap().split(' ').nth(1).unwrap().to_owned();
    place.done("alice", &format!("users --pin {pin}"));
    let wrong = format!("sha256:{}", "0".repeat(64));
    assert!(place.failed("alice", &format!("users --pin {wrong}"), 4).contains("not the demanded one"));
    // Another daemon with another certificate under the same name.
    place.daemon.stop();
    std::fs::remove_dir_all(place.path("certs")).unwrap();
    let mut command = place.home.command();
    command.args(place.home.arguments()).args(["serve", "--listen", &before.to_string()]);
    place.daemon = Daemon::start(command);
    let errors = place.failed("alice", "users", 4);
    assert!(errors.contains("has changed") && errors.contains("hint: "), "{errors}");
    let json = place.run("alice", "users --json");
    let event: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &event["exit"]), (Some(4), &4.into()));
    // The new fingerprint, accepted by hand, is the one from then on.
    let shown = errors.split("--pin ").nth(1).unwrap().split([',', ' ', '\n']).next().unwrap();
    place.done("alice", &format!("users --pin {shown}"));
    place.done("alice", "users");
    // And without any server it is the network.
    place.daemon.stop();
    assert!(place.failed("alice", "users", 5).contains("cannot be reached"));
    assert!(place.done("alice", "whoami").contains("logged in"), "what is known here is shown all the same");
}
