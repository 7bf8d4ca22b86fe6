//! The binary as an operator meets it: subcommands, exit codes, what it says of a configuration that is
//! wrong. Long texts are compared with the golden files in `tests/cli/`; `UPDATE_GOLDEN=1 cargo test
//! --test cli` writes them anew.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

mod support;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use support::client::wait_until;
use support::{Client, Daemon, Home, Link};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a subcommand that must succeed; its standard output.
fn run(home: &Home, arguments: &[&str]) -> String {
    let done = home.run(arguments);
    assert!(done.status.success(), "{arguments:?}: {}\n{}{}", done.status, text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}

/// Runs a subcommand that must fail, without a panic; its standard error.
fn fail(home: &Home, arguments: &[&str]) -> String {
    failed(&home.run(arguments), arguments)
}

fn failed(done: &Output, arguments: &[&str]) -> String {
    let errors = text(&done.stderr);
    assert!(
        matches!(done.status.code(), Some(1 | 2)),
        "{arguments:?}: {}\n{}{errors}",
        done.status,
        text(&done.stdout)
    );
    assert!(!errors.is_empty() && !errors.contains("panicked"), "{arguments:?}: {errors:?}");
    assert!(done.stdout.is_empty(), "an error goes to standard error: {}", text(&done.stdout));
    errors
}

fn password_file(home: &Home, password: &str) -> String {
    let path = home.path(&format!("{}.pw", password.len()));
    std::fs::write(&path, format!("{password}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Compares `got` with `tests/cli/NAME`, after what changes from run to run was replaced.
fn golden(name: &str, home: &Home, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(name);
    let got = got.replace(home.directory().to_str().unwrap(), "HOME").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let got: String = got.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &got).unwrap();
    }
    let expected =
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}; it should hold:\n{got}", path.display()));
    assert!(expected == got, "{} differs\n--- expected\n{expected}--- got\n{got}", path.display());
}

fn log_in(daemon: &Daemon, name: &str, password: &str, answer: &str) -> Client {
    let mut client = Client::connect(daemon.address());
    client.ask(&format!("/login {name} {password}"), answer);
    client
}

#[test]
fn help_and_version() {
    let home = Home::new("");
    let mut got = String::new();
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["check", "--help"],
        &["user", "--help"],
        &["user", "add", "--help"],
        &["invite", "--help"],
        &["backup", "--help"],
    ] {
        let done = home.command().args(arguments).env("COLUMNS", "100").output().unwrap();
        assert!(done.status.success(), "{arguments:?}");
        got.push_str(&format!("$ downstream {}\n{}\n", arguments.join(" "), text(&done.stdout)));
    }
    golden("help.txt", &home, &got);
    let done = home.command().arg("--version").output().unwrap();
    assert_eq!(text(&done.stdout), format!("downstream {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage() {
    let home = Home::new("");
    for arguments in [
        &["frobnicate"][..],
        &["--frobnicate"],
        &["user"],
        &["user", "frobnicate"],
        &["user", "add"],
        &["user", "add", "not a name", "--password-file", "x"],
        &["user", "add", "system", "--password-file", "x"],
        &["backup"],
        &["--listen", "nowhere"],
        &["--listen"],
    ] {
        let done = home.command().args(arguments).output().unwrap();
        failed(&done, arguments);
    }
    // A password is never an argument.
    fail(&home, &["user", "add", "alice", "password-alice"]);
}

#[test]
fn accounts_on_the_database() {
    let home = Home::new("");
    let file = password_file(&home, "password-one");
    run(&home, &["user", "add", "Alice", "--password-file", &file]);
    run(&home, &["user", "add", "bob", "--password-file", &file]);
    let again = fail(&home, &["user", "add", "alice", "--password-file", &file]);
    assert!(again.contains("alice"), "{again}");
    let short = password_file(&home, "short");
    fail(&home, &["user", "add", "carol", "--password-file", &short]);
    fail(&home, &["user", "add", "carol", "--password-file", "/nonexistent/file"]);
    for act in ["passwd", "disable", "enable", "delete", "admin"] {
        let mut arguments = vec!["user", act, "nobody"];
        if act == "passwd" {
            arguments.extend(["--password-file", &file]);
        }
        let errors = fail(&home, &arguments);
        assert!(errors.contains("nobody"), "{act}: {errors}");
    }
    run(&home, &["user", "admin", "bob"]);
    let list = run(&home, &["user", "list"]);
    let line = |name: &str| {
        list.lines().find(|line| line.split_whitespace().any(|w| w == name)).unwrap_or_else(|| panic!("{list}"))
    };
    assert!(line("bob").contains("admin") && !line("alice").contains("admin"), "{list}");
    assert!(!list.contains("carol"), "{list}");
    // `--config` and `--data` stand before or after.
    let done = home.command().args(["user", "list"]).args(home.arguments()).output().unwrap();
    assert_eq!(text(&done.stdout), list);

    let daemon = home.start();
    log_in(&daemon, "alice", "password-one", "OK login user=alice unread=0");
}

#[test]
fn accounts_while_the_daemon_runs() {
    let home = Home::new("");
    let daemon = home.start();
    let one = password_file(&home, "password-one");
    let two = password_file(&home, "password-number-two");
    run(&home, &["user", "add", "alice", "--password-file", &one]);
    let mut alice = log_in(&daemon, "alice", "password-one", "OK login user=alice unread=0");
    // A new password ends the sessions of the old one.
    run(&home, &["user", "passwd", "alice", "--password-file", &two]);
    alice.expect("* bye <REST>");
    alice.expect_closed();
    log_in(&daemon, "alice", "password-one", "ERR login auth-failed");
    let mut alice = log_in(&daemon, "alice", "password-number-two", "OK login user=alice unread=0");
    // The right to administer comes without a new login.
    alice.ask("/admin invite", "ERR admin forbidden");
    run(&home, &["user", "admin", "alice"]);
    wait_until("alice may administer", || {
        alice.say("/admin invite");
        alice.line().unwrap().starts_with("OK admin ")
    });
    run(&home, &["user", "disable", "alice"]);
    alice.expect("* bye <REST>");
    alice.expect_closed();
    log_in(&daemon, "alice", "password-number-two", "ERR login banned");
    log_in(&daemon, "alice", "password-wrong", "ERR login auth-failed");
    run(&home, &["user", "enable", "alice"]);
    let mut alice = log_in(&daemon, "alice", "password-number-two", "OK login user=alice unread=0");
    run(&home, &["user", "delete", "alice", "--yes"]);
    alice.expect("* bye <REST>");
    alice.expect_closed();
    log_in(&daemon, "alice", "password-number-two", "ERR login auth-failed");
    let mut mallory = Client::connect(daemon.address());
    mallory.ask("/register alice password-mallory", "ERR register name-taken");
    assert!(!run(&home, &["user", "list"]).lines().any(|line| line.starts_with("alice")));
}

#[test]
fn an_invitation_alone_on_a_line() {
    let home = Home::new("[accounts]\nregistration = \"invite\"\n");
    // Before the first start, too.
    let first = run(&home, &["invite"]);
    let daemon = home.start();
    let second = run(&home, &["invite"]);
    for (n, code) in [first, second].iter().enumerate() {
        assert_eq!(code.lines().count(), 1, "{code:?}");
        let code = code.trim_end();
        assert!(!code.is_empty() && !code.contains(char::is_whitespace), "{code:?}");
        let mut client = Client::connect(daemon.address());
        client.ask(&format!("/register user{n} password-user {code}"), &format!("OK register user=user{n}"));
    }
}

#[test]
fn a_backup_of_the_running_daemon_is_a_database_to_start_from() {
    let home = Home::new("");
    let daemon = home.start();
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice password-alice", "OK register user=alice");
    alice.ask("/join #log", "OK join room=#log members=1 e2e=no last=0");
    alice.ask("/msg #log before", "OK msg id=<ID> time=<TIME> to=#log");
    let copy = home.path("copy.db");
    run(&home, &["backup", copy.to_str().unwrap()]);
    alice.ask("/msg #log after", "OK msg id=<ID> time=<TIME> to=#log");
    let mode = std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & 0o077, 0, "a backup is nobody else's business: {mode:o}");
    // An existing file is not overwritten.
    let before = std::fs::read(&copy).unwrap();
    fail(&home, &["backup", copy.to_str().unwrap()]);
    assert_eq!(std::fs::read(&copy).unwrap(), before);
    fail(&home, &["backup", "/nonexistent/directory/copy.db"]);

    // In a new home with the same key, under the name that the data directory has for it.
    let other = Home::new("");
    std::fs::create_dir(other.path("data")).unwrap();
    let database = std::fs::read_dir(home.path("data")).unwrap().map(|f| f.unwrap().file_name()).find(|name| {
        let name = name.to_str().unwrap();
        name.ends_with(".db") || name.ends_with(".sqlite") || name.ends_with(".sqlite3")
    });
    std::fs::copy(&copy, other.path("data").join(database.unwrap())).unwrap();
    std::fs::copy(home.path("data/server.key"), other.path("data/server.key")).unwrap();
    let restored = other.start();
    let mut alice = log_in(&restored, "alice", "password-alice", "OK login user=alice unread=0");
    alice.ask("/fetch #log", "- msg <ID> <TIME> #log alice :before");
    alice.expect("OK fetch count=1 more=no");
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let home = Home::new("");
    let mut daemon = home.start();
    let done = home.command().args(home.serve_arguments()).output().unwrap();
    let errors = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{errors}");
    assert!(!text(&done.stdout).contains("listening on"), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    assert!(daemon.is_alive());
    // A crash leaves nothing behind that keeps the next one out.
    daemon.kill();
    home.start();
}

#[test]
fn check_names_every_problem() {
    let home = Home::new("");
    run(&home, &["check"]);
    let bad = "\
listn = [\"127.0.0.1:7667\"]
[accounts]
registration = \"maybe\"
[limits]
outbound_bytes = 5
mesages_per_second = 3
[accounts.argon2]
memory_kib = 16
[tls]
cert = \"nowhere/cert.pem\"
key = \"nowhere/key.pem\"
";
    std::fs::write(home.path("downstream.toml"), bad).unwrap();
    let errors = fail(&home, &["check"]);
    for hint in [
        "listn",
        "listen",
        "mesages_per_second",
        "messages_per_second",
        "registration",
        "outbound_bytes",
        "65536",
        "memory_kib",
        "8192",
        "nowhere/cert.pem",
    ] {
        assert!(errors.contains(hint), "{hint} is not named:\n{errors}");
    }
    golden("check.txt", &home, &errors);
    // The daemon does not start with it.
    let done = home.command().args(home.serve_arguments()).output().unwrap();
    let errors = failed(&done, &["serve"]);
    assert!(errors.contains("mesages_per_second"), "{errors}");
}

#[test]
fn configurations_that_are_wrong() {
    let home = Home::new("");
    for (config, hint) in [
        ("listen = \"127.0.0.1:7667\"\n", "listen"),
        ("listen = [\"nonsense\"]\n", "nonsense"),
        ("listen = []\n", "listen"),
        ("[limits]\nmessage_burst = -1\n", "message_burst"),
        ("[limits]\nlogin_seconds = \"soon\"\n", "login_seconds"),
        ("[accounts]\nsessions_per_account = 0\n", "sessions_per_account"),
        ("[acounts]\n", "accounts"),
        ("[tls]\ncert = \"only-a-cert.pem\"\n", "key"),
        ("this is no TOML", "downstream.toml"),
    ] {
        std::fs::write(home.path("downstream.toml"), config).unwrap();
        let errors = fail(&home, &["check"]);
        assert!(errors.contains(hint), "{config:?} should name {hint}: {errors}");
    }
    let done = home.command().args(["--config", "missing.toml", "check"]).output().unwrap();
    assert!(failed(&done, &["check"]).contains("missing.toml"));
}

#[test]
fn the_first_start_makes_what_it_needs_and_never_again() {
    let home = Home::new("");
    let mut daemon = home.start();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.path("data/server.key")), 0o600);
    let certs: Vec<_> = std::fs::read_dir(home.path("certs")).unwrap().map(|f| f.unwrap().path()).collect();
    let contents = || certs.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
    let secret = certs.iter().find(|path| text(&std::fs::read(path).unwrap()).contains("PRIVATE KEY")).unwrap();
    assert_eq!(mode(secret), 0o600);
    let (before, key) = (contents(), std::fs::read(home.path("data/server.key")).unwrap());
    daemon.stop();
    home.start();
    assert_eq!(contents(), before);
    assert_eq!(std::fs::read(home.path("data/server.key")).unwrap(), key);
    // Another key does not open what this one sealed.
    std::fs::write(home.path("data/server.key"), vec![7; key.len()]).unwrap();
    let done = home.command().args(home.serve_arguments()).output().unwrap();
    assert!(!done.status.success() && !text(&done.stderr).contains("panicked"), "{}", text(&done.stderr));
}

#[test]
fn what_the_start_prints() {
    let home = Home::new("");
    let daemon = home.start();
    let fingerprint = "SHA-256";
    wait_until("the fingerprint and the line to paste", || {
        let log = daemon.log();
        log.contains(fingerprint) && log.contains(&format!("openssl s_client -quiet -connect {}", daemon.address()))
    });
}

#[test]
fn several_addresses_are_announced_each() {
    let home = Home::new("");
    let daemon = Daemon::start({
        let mut command = home.command();
        command.arg("serve").args(home.arguments()).args(["--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0"]);
        command
    });
    wait_until("both are announced", || daemon.log().matches("out: listening on ").count() == 2);
    let log = daemon.log();
    for line in log.lines().filter_map(|line| line.strip_prefix("out: listening on ")) {
        Client::connect(line.parse().unwrap()).ask("/ping", "OK ping");
    }
}

#[test]
fn a_reload_is_whole_or_nothing() {
    let home = Home::new("name = \"first.example\"\n");
    let daemon = home.start();
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice password-alice", "OK register user=alice");
    let greeted = || {
        let mut client = Client::raw(daemon.address(), &support::Options::default());
        client.expect("* hello downstream/1 server=<WORD:server> ... registration=<WORD:registration> ... :<TEXT>")
    };
    home.configure("name = \"second.example\"\n[accounts]\nregistration = \"closed\"\n");
    daemon.signal(Signal::HUP);
    wait_until("the new configuration holds", || greeted()["registration"] == "closed");
    // A bad file keeps the old one and says why.
    std::fs::write(home.path("downstream.toml"), "[accounts]\nregistration = \"open\"\nregistratoin = 1\n").unwrap();
    daemon.signal(Signal::HUP);
    wait_until("the reason is logged", || daemon.log().contains("registratoin"));
    assert_eq!(greeted()["registration"], "closed");
    // Sessions stay.
    alice.ask("/ping", "OK ping");
}

#[test]
fn a_password_is_read_from_a_pipe_only_by_password_file() {
    let home = Home::new("");
    // Without a terminal and without --password-file there is nobody to ask.
    let mut child = home
        .command()
        .args(home.arguments())
        .args(["user", "add", "alice"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(b"password-alice\npassword-alice\n");
    let done = child.wait_with_output().unwrap();
    assert!(!text(&done.stderr).contains("panicked"), "{}", text(&done.stderr));
    assert!(!text(&done.stdout).contains("password-alice") && !text(&done.stderr).contains("password-alice"));
}

#[test]
fn logs_hold_no_secrets_and_no_bodies() {
    let home = Home::new("");
    let daemon = Daemon::start({
        let mut command: Command = home.command();
        command.args(home.serve_arguments()).env("RUST_LOG", "trace");
        command
    });
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice secret-password-1", "OK register user=alice");
    let token = alice.ask("/token", "OK token name=<WORD> token=token:<WORD:token><REST>")["token"].clone();
    alice.ask("/passwd secret-password-1 secret-password-2", "OK passwd");
    alice.ask("/msg alice the-body-of-a-message", "OK msg id=<ID> time=<TIME> to=alice peer=online");
    let mut wrong = Client::connect(daemon.address());
    wrong.ask("/login alice secret-password-3", "ERR login auth-failed");
    wrong.ask("  /login alice secret-password-2", "ERR msg syntax :<TEXT>");
    wrong.ask("/logn alice secret-password-2", "ERR logn unknown-command");
    wrong.ask("/nobody\u{1b}[31m x", "ERR * unknown-command");
    let log = daemon.log();
    for secret in ["secret-password", token.as_str(), "the-body-of-a-message", "\u{1b}"] {
        assert!(!log.contains(secret), "{secret:?} is in the log:\n{log}");
    }
    assert!(log.contains("alice"), "logins are logged:\n{log}");
}
