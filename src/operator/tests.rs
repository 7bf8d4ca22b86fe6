use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clap::Parser as _;
use tempfile::TempDir;

use super::*;
use crate::cli::Cli;
use crate::ops::{Answer, Done, HashDone, HashOp, Query, Ticket};
use crate::store::News;

/// Answers what it is told to; without an answer there is no terminal.
#[derive(Default)]
struct Script {
    asked: Vec<String>,
    answers: VecDeque<&'static str>,
    input: io::Cursor<Vec<u8>>,
}

impl Script {
    fn answer(&mut self, question: &str) -> io::Result<String> {
        self.asked.push(question.to_owned());
        self.answers.pop_front().map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Prompt for Script {
    fn password(&mut self, question: &str) -> io::Result<Zeroizing<String>> {
        self.answer(question).map(Zeroizing::new)
    }
    fn line(&mut self, question: &str) -> io::Result<String> {
        self.answer(question)
    }
    fn input(&mut self) -> &mut dyn Read {
        &mut self.input
    }
}

/// A directory to work in, with the cheapest parameters that there are.
struct Home {
    dir: TempDir,
    config: Config,
    script: Script,
}

impl Home {
    fn new() -> Home {
        let dir = tempfile::tempdir().expect("a directory");
        let cheap = "[accounts.argon2]\nmemory_kib = 8192\niterations = 1\n";
        let mut config = crate::config::parse(Path::new("c.toml"), cheap).expect("a usable text").config;
        config.data = dir.path().join("data");
        Home { dir, config, script: Script::default() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&mut self, line: &str) -> Result<String, String> {
        let (_, command) = Cli::try_parse_from(std::iter::once("downstream").chain(line.split(' ')))
            .and_then(Cli::split)
            .unwrap_or_else(|error| panic!("{error}"));
        let mut out = Vec::new();
        let mut operator =
            Operator { config: &self.config, credentials: None, prompt: &mut self.script, out: &mut out };
        operator.run(command).map_err(|failure| {
            assert_eq!(failure.exit_code(), 1);
            failure.to_string()
        })?;
        Ok(String::from_utf8(out).expect("text"))
    }

    fn answering(&mut self, answers: &[&'static str]) -> &mut Home {
        self.script.answers = answers.iter().copied().collect();
        self
    }

    fn piping(&mut self, input: &[u8]) -> &mut Home {
        self.script.input = io::Cursor::new(input.to_vec());
        self
    }

    fn done(&mut self, line: &str, expected: &str) {
        assert_eq!(self.run(line).as_deref(), Ok(expected), "{line}");
    }

    fn refused(&mut self, line: &str, expected: &str) {
        assert_eq!(self.run(line).expect_err(line), format!("downstream: {expected}"), "{line}");
    }

    /// Whether a password is the account's, as the daemon finds out, and whether it would be hashed anew.
    fn matches(&self, name: &str, password: &str) -> (bool, bool) {
        let key = ServerKey::load_or_create(&self.config.data, None).expect("a key");
        let (woken, wakes) = mpsc::channel();
        let wake = move || {
            let _ = woken.send(());
        };
        let hasher =
            hasher::Hasher::start(1, self.config.argon2(), key.password_secret(), wake.clone()).expect("a pool");
        let database = Database::open(&self.config.data, &key).expect("a database");
        let (mut store, _) = database.start(Arc::new(wake)).expect("a store");
        store.ask(Ticket(1), Query::Credentials(UserName::parse(name).expect("a name")));
        loop {
            wakes.recv_timeout(Duration::from_secs(60)).expect("an answer");
            store.drain(|news| {
                if let News::Answer(ticket, Done::Query(Ok(Answer::Credentials(Some(found))))) = news {
                    hasher
                        .try_submit(ticket, HashOp::Verify(Password::new(password), Some(found.verifier)))
                        .expect("room");
                }
            });
            let mut answer = None;
            hasher.drain(|_, done| answer = Some(done));
            if let Some(HashDone::Verified { matches, upgraded }) = answer {
                return (matches, upgraded.is_some());
            }
        }
    }

    /// Name and state of every account.
    fn accounts(&mut self) -> Vec<String> {
        let list = self.run("user list").expect("a list");
        list.lines().map(|line| line.split(" created=").next().expect("a name").to_owned()).collect()
    }
}

#[test]
fn an_account_is_added_with_a_password_asked_for_twice() {
    let mut home = Home::new();
    home.answering(&["password-ann", "password-ann"]).done("user add Ann", "added ann\n");
    assert_eq!(home.script.asked, ["Password for ann: ", "Again: "]);
    home.answering(&["password-bob", "password-bob"]).done("user add bob --admin", "added bob, an administrator\n");
    assert_eq!(home.accounts(), ["ann", "bob admin"]);

    home.answering(&["password-ann", "password-ann"]).refused("user add ann", "there is a user ann already");
    home.answering(&["password-one", "password-two"])
        .refused("user add eve", "the two passwords differ; nothing was changed");
    home.answering(&["short", "short"]).refused("user add eve", "a password has 8 to 1024 bytes; nothing was changed");
    home.answering(&["longname1", "longname1"])
        .refused("user add longname1", "a password is not the name; nothing was changed");
    home.refused("user add eve", "there is no terminal to ask on (entity not found); use --password-file");
    assert_eq!(home.accounts(), ["ann", "bob admin"]);
}

#[test]
fn a_password_comes_from_a_file_or_from_standard_input() {
    let mut home = Home::new();
    let file = home.at("pw");
    std::fs::write(&file, "password ann \r\n").expect("a file");
    home.done(&format!("user add ann --password-file {}", file.display()), "added ann\n");
    home.piping(b"password-bob\n").done("user add bob --password-file -", "added bob\n");
    home.piping(b"password-cat").done("user add cat --password-file -", "added cat\n");

    for (input, expected) in [
        (&b"one line\nanother\n"[..], "standard input: has a line break or a NUL in it; a password is one line"),
        (b"password\0x", "standard input: has a line break or a NUL in it; a password is one line"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", "standard input: not UTF-8 text"),
        (&[b'x'; 5000], "standard input: is larger than 4096 bytes; is it the right file?"),
        (b"", "a password has 8 to 1024 bytes; nothing was changed"),
        (b"token:abcdefgh", "a password does not begin with token:; nothing was changed"),
    ] {
        home.piping(input).refused("user add dan --password-file -", expected);
    }
    let missing = home.run("user add dan --password-file /nonexistent/pw").expect_err("no file");
    assert!(missing.starts_with("downstream: /nonexistent/pw: No such file"), "{missing}");
    assert!(home.script.asked.is_empty());
}

#[test]
fn a_password_that_was_set_is_the_one_that_matches() {
    let mut home = Home::new();
    home.piping(b"password-one").done("user add ann --password-file -", "added ann\n");
    home.piping(b"password-two")
        .done("user passwd ann --password-file -", "ann has a new password; sessions and tokens have ended\n");
    assert_eq!(home.accounts(), ["ann"]);
    assert_eq!(home.matches("ann", "password-two"), (true, false));
    assert_eq!(home.matches("ann", "password-one"), (false, false));
    home.refused("user passwd eve --password-file -", "there is no user eve");
}

#[test]
fn accounts_are_disabled_promoted_and_erased() {
    let mut home = Home::new();
    home.piping(b"password-ann").done("user add ann --password-file -", "added ann\n");
    home.done("user disable ann", "ann cannot log in any more; sessions have ended\n");
    home.done("user admin ann", "ann may now use /admin\n");
    assert_eq!(home.accounts(), ["ann admin disabled"]);
    home.done("user enable ann", "ann can log in again\n");
    home.done("user admin ann --revoke", "ann can no longer use /admin\n");
    assert_eq!(home.accounts(), ["ann"]);
    for act in ["disable", "enable", "admin", "delete", "delete --yes"] {
        let (act, yes) = act.split_once(' ').unwrap_or((act, ""));
        home.refused(format!("user {act} eve {yes}").trim_end(), "there is no user eve");
    }

    home.answering(&["no"]).refused("user delete ann", "ann was not erased");
    assert_eq!(home.script.asked, ["Erase ann for ever? Type the name to go on: "]);
    home.refused("user delete ann", "there is no terminal to ask on (entity not found); use --yes");
    assert_eq!(home.accounts(), ["ann"]);
    home.answering(&["ann"]).done("user delete ann", "erased ann; the name stays reserved\n");
    assert_eq!(home.accounts(), [""; 0]);
    let taken = home.piping(b"password-ann").run("user add ann --password-file -").expect_err("reserved");
    assert_eq!(taken, "downstream: the name ann is taken; names of deleted users are never given again");
    home.piping(b"password-bob").done("user add bob --password-file -", "added bob\n");
    home.done("user delete bob --yes", "erased bob; the name stays reserved\n");
}

#[test]
fn an_invitation_is_a_code_alone_on_a_line_and_never_the_same() {
    let mut home = Home::new();
    let codes = [home.run("invite").expect("a code"), home.run("invite").expect("a code")];
    for code in &codes {
        let code = code.strip_suffix('\n').expect("a line");
        assert_eq!(code.len(), 22);
        assert!(code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{code}");
    }
    assert_ne!(codes[0], codes[1]);
}

#[test]
fn a_backup_is_a_database_and_replaces_nothing() {
    let mut home = Home::new();
    home.piping(b"password-ann").done("user add ann --password-file -", "added ann\n");
    let copy = home.at("copy.db");
    let line = format!("backup {}", copy.display());
    home.done(
        &line,
        &format!(
            "wrote {}; keep server.key too, in another place: the copy does not open without it\n\
             files that were sent are not in it: now copy the directory files, too\n",
            copy.display()
        ),
    );
    home.refused(&line, &format!("{} exists already: name another file", copy.display()));

    let mut other = Home::new();
    std::fs::create_dir(other.at("data")).expect("a directory");
    std::fs::copy(&copy, other.at("data/downstream.db")).expect("a copy");
    std::fs::copy(home.at("data/server.key"), other.at("data/server.key")).expect("a copy");
    assert_eq!(other.accounts(), ["ann"]);
}

#[test]
fn a_wrong_data_directory_is_not_made_by_a_question() {
    let mut home = Home::new();
    let data = home.config.data.display().to_string();
    for line in ["user list", "user passwd ann", "user disable ann", "user delete ann --yes", "backup copy.db"] {
        home.refused(line, &format!("{data} does not exist; name the data directory with --data or --config"));
    }
    assert!(!home.config.data.exists());
}

// ---- check -------------------------------------------------------------------------------------

fn checked(home: &Home, text: &str) -> Result<Checked, Failure> {
    let file = home.at("d.toml");
    std::fs::write(&file, text).expect("a file");
    check(&Source { file: Some(file), ..Source::default() }, None, 30_000)
}

/// A pair of files in the home, for `[tls]`.
fn pair(home: &Home) -> (String, Sha256) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let cert =
        rcgen::CertificateParams::new(vec!["x".to_owned()]).expect("names").self_signed(&key).expect("a certificate");
    let (cert_path, key_path) = (home.at("c.pem"), home.at("k.pem"));
    std::fs::write(&cert_path, cert.pem()).expect("a file");
    std::fs::write(&key_path, key.serialize_pem()).expect("a file");
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o604);
    std::fs::set_permissions(&key_path, open).expect("a mode");
    let text = format!("[tls]\ncert = \"{}\"\nkey = \"{}\"\n", cert_path.display(), key_path.display());
    (text, Sha256::of(cert.der()))
}

#[test]
fn check_reports_what_is_well_and_warns_of_what_may_not_be() {
    let home = Home::new();
    let (tls, fingerprint) = pair(&home);
    let text = format!(
        "listen = [\"127.0.0.1:1\", \"[::1]:2\"]\ndata = \"d\"\n{tls}[limits]\nconnections = 40000\nline_seconds = 0\n"
    );
    let found = checked(&home, &text).expect("a usable file");
    let dir = home.dir.path().display();
    assert_eq!(
        found.report,
        format!(
            "configuration {dir}/d.toml\nlisten 127.0.0.1:1 [::1]:2\ndata d\ncertificate SHA-256 {}\n",
            fingerprint.to_hex()
        )
    );
    assert_eq!(
        found.warnings,
        [
            format!(
                "{dir}/d.toml:8: limits.line_seconds: 0 switches this deadline off: who does nothing keeps a place for ever; default 300"
            ),
            format!("{dir}/k.pem: every user of this machine can reach the private key; run: chmod o= {dir}/k.pem"),
            "limits.connections is 40000, but the process may open 30000 files: raise the limit to 40064 \
             (LimitNOFILE= in the unit, or ulimit -n), or lower limits.connections to 29936"
                .to_owned(),
        ]
    );
}

#[test]
fn check_reports_every_problem_of_configuration_and_certificates_at_once() {
    let home = Home::new();
    let dir = home.dir.path().display();
    let failure =
        checked(&home, "nme = 1\n[tls]\ncert = \"/no/c.pem\"\nkey = \"/no/k.pem\"\n[limits]\nconnections = -1\n")
            .expect_err("problems");
    assert_eq!(failure.exit_code(), 2);
    let missing = "no such file; the configuration names it: put it there, or take tls.cert and tls.key out to have a self-signed pair made";
    assert_eq!(
        failure.to_string(),
        format!(
            "{dir}/d.toml:1: nme: unknown key; the nearest known key is name\n\
             {dir}/d.toml:6: limits.connections: -1 is too small; allowed: 1 to 1000000, or 0 for off\n\
             /no/c.pem: {missing}\n/no/k.pem: {missing}"
        )
    );
}

#[test]
fn failures_cannot_steer_a_terminal() {
    assert_eq!(Failure::because("a\u{1b}[2Jb").to_string(), "downstream: a\\u{1b}[2Jb");
    assert_eq!(Failure::Config(vec!["x\ny".to_owned(), "z".to_owned()]).to_string(), "x\\ny\nz");
}
