//! `dsc` as a person meets it before there is any server: help, usage errors, exit codes, settings,
//! completions, the manual page. Long texts are compared with the golden files in `tests/dsc/`;
//! `UPDATE_GOLDEN=1 cargo test --test dsc_cli` writes them anew.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_dsc");

/// A directory to work in, with a home for `dsc` in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::Builder::new().prefix("dsc-test-").tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `dsc` in a session of its own, so that there is no terminal even where a developer has one.
    fn command(&self) -> Command {
        let mut command = Command::new("setsid");
        command.arg("--wait").arg(BINARY).current_dir(self.0.path()).stdin(Stdio::null());
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "XDG_DATA_HOME"] {
            command.env_remove(name);
        }
        command.env("DSC_HOME", self.path("home")).env("HOME", self.0.path()).env("COLUMNS", "100");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    fn run_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that fails early does not read all of it.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Settings in the home, as a person would write them.
    fn settings(&self, text: &str) {
        std::fs::create_dir_all(self.path("home")).unwrap();
        std::fs::write(self.path("home/dsc.toml"), text).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard output of what must succeed.
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Standard error of what must fail with an exit code.
fn failed(output: &Output, exit: i32) -> String {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{errors}{}", text(&output.stdout));
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

/// Compares with `tests/dsc/NAME`.
fn golden(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dsc").join(name);
    let got: String = got.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &got).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let difference = expected.lines().zip(got.lines()).find(|(expected, got)| expected != got);
    assert!(expected == got, "{} differs: {difference:#?}\n--- got\n{got}", path.display());
}

/// The commands of `dsc --help`.
fn commands(place: &Place) -> Vec<String> {
    let help = done(&place.run(&["--help"]));
    let listing = help.split("\nOptions:").next().unwrap();
    let rows = listing.lines().filter_map(|line| line.strip_prefix("  "));
    rows.filter_map(|row| row.split(' ').next()).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[test]
fn help_of_everything() {
    let place = Place::new();
    let mut got = format!("$ dsc --help\n{}\n", done(&place.run(&["--help"])));
    for name in commands(&place).into_iter().filter(|name| name != "help") {
        let help = done(&place.run(&[&name, "--help"]));
        assert_eq!(help, done(&place.run(&[&name, "-h"])), "one help for both");
        assert_eq!(help, done(&place.run(&["help", &name])));
        let (own, rest) = help.split_once("Global options:").unwrap();
        let behind = rest.split_once("\n\n").map(|(_, behind)| behind).unwrap_or_default();
        got.push_str(&format!("$ dsc {name} --help\n{own}{behind}\n"));
    }
    for name in ["publish", "status", "refill"] {
        let help = done(&place.run(&["keys", name, "--help"]));
        got.push_str(&format!("$ dsc keys {name} --help\n{}\n", help.split("Global options:").next().unwrap()));
    }
    golden("help.txt", &got);
    assert_eq!(done(&place.run(&["--version"])), format!("dsc {}\n", env!("CARGO_PKG_VERSION")));
    assert!(!place.path("home").exists(), "help leaves nothing behind");
}

#[test]
fn wrong_usage() {
    let place = Place::new();
    let mut got = String::new();
    // Who asks for nothing is told everything.
    for alone in [&[][..], &["keys"]] {
        let output = place.run(alone);
        assert_eq!(failed(&output, 2), done(&place.run(&[alone, &["--help"]].concat())));
        assert!(output.stdout.is_empty());
    }
    for line in [
        "frobnicate",
        "sned bob hi",
        "--frobnicate",
        "send",
        "send bob,#",
        "join",
        "join a/b",
        "fetch --limit 5",
        "fetch #r --limit 0",
        "fetch #r --before 3 --after 2",
        "delete bob nothing",
        "create r --open --closed",
        "trust bob --accept 123",
        "trust bob --was-verified",
        "seal",
        "seal --to bob --room r",
        "whoami --server a:b:c",
        "whoami --user admin",
        "whoami --pin sha256:12",
        "whoami --color blue",
        "whoami --pass-fd 3 --passphrase-file f",
        "whoami --password-file - --passphrase-file -",
        "whoami --password secret",
        "login secret",
        "completions tcsh",
        "man nothing",
    ] {
        let output = place.run(&line.split_whitespace().collect::<Vec<_>>());
        let errors = failed(&output, 2);
        assert!(output.stdout.is_empty(), "{line}: {}", text(&output.stdout));
        got.push_str(&format!("$ dsc {line}\n{}\n", errors.trim_end()));
        got.push('\n');
    }
    golden("usage.txt", &got);
}

#[test]
fn a_secret_without_a_terminal_names_the_option() {
    let place = Place::new();
    for (arguments, option) in [
        (&["login", "--server", "h", "--user", "alice"][..], "--password-file"),
        (&["register", "--user", "alice"], "--server HOST"),
        (&["register", "--server", "h"], "--user NAME"),
    ] {
        let errors = failed(&place.run(arguments), 2);
        assert!(errors.contains("there is no terminal to ask for") && errors.contains(option), "{errors}");
        // What is piped in is not an answer either.
        let errors = failed(&place.run_with(arguments, b"secret-password\nsecret-password\n"), 2);
        assert!(!errors.contains("secret-password"), "{errors}");
    }
}

#[test]
fn a_password_file_is_read_as_it_is() {
    let place = Place::new();
    let file = place.path("pw");
    let login = ["login", "--server", "127.0.0.1:1", "--user", "alice", "--no-passphrase", "--password-file", "pw"];
    let cases: [(&[u8], &str); 4] = [
        (b"", "the line is empty"),
        (b"\nsecret-password\n", "the line is empty"),
        (b"\xff\xfe\n", "it is not UTF-8 text"),
        (&[b'x'; 5000], "the line is longer than 4096 bytes"),
    ];
    for (content, why) in cases {
        std::fs::write(&file, content).unwrap();
        assert!(failed(&place.run(&login), 1).contains(why));
    }
    assert!(failed(&place.run(&[&login[..7], &["missing"]].concat()), 1).contains("cannot open missing"));
    // A good one gets as far as the network.
    for (mode, warned) in [(0o644, true), (0o600, false)] {
        std::fs::write(&file, "secret-password\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let errors = failed(&place.run(&login), 5);
        assert!(errors.contains("127.0.0.1:1 cannot be reached"), "{errors}");
        assert_eq!(errors.contains("every user of this machine can read pw; chmod 600 it"), warned, "{errors}");
        assert!(!errors.contains("secret-password"));
    }
}

#[test]
fn settings_that_are_wrong_are_named() {
    let place = Place::new();
    for (settings, problem) in [
        ("\nservr = \"x\"\n", "dsc.toml: line 2: servr: unknown key; the nearest known key is server"),
        ("color = \"blue\"", "line 1: color \"blue\" is none of them; it takes \"auto\", \"always\" or \"never\""),
        ("history_days = -1", "line 1: history_days is -1; it takes 0 to 36500 days"),
        ("server = \"a\\u001bb\"", "line 1: server \"a\\u{1b}b\" is no address"),
        ("this is no TOML", "line 1: not TOML"),
        ("colour = 1\nuser = 2", "(1 more)\nhint: line 2: user is a whole number"),
    ] {
        place.settings(settings);
        let output = place.run(&["whoami"]);
        let errors = failed(&output, 2);
        assert!(errors.starts_with("dsc: ") && errors.contains(problem), "{settings:?}: {errors}");
        // Programs get it as an object.
        let output = place.run(&["whoami", "--json"]);
        assert_eq!(output.status.code(), Some(2));
        let event: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&event["event"], &event["exit"]), (&"error".into(), &2.into()));
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn the_home_is_where_it_is_said_to_be() {
    let place = Place::new();
    let whoami = |command: &mut Command| done(&command.arg("whoami").output().unwrap());
    for directory in ["flag", "variable", "xdg/dsc", ".local/share/dsc"] {
        std::fs::create_dir_all(place.path(directory)).unwrap();
        let user = directory.replace(['/', '.'], "");
        std::fs::write(place.path(directory).join("dsc.toml"), format!("user = \"{user}\"")).unwrap();
    }
    let base = || {
        let mut command = place.command();
        command.env_remove("DSC_HOME");
        command
    };
    assert!(whoami(&mut base()).starts_with("localsharedsc:"));
    assert!(whoami(base().env("XDG_DATA_HOME", "relative/is/ignored")).starts_with("localsharedsc:"));
    assert!(whoami(base().env("XDG_DATA_HOME", place.path("xdg"))).starts_with("xdgdsc:"));
    assert!(
        whoami(base().env("XDG_DATA_HOME", place.path("xdg")).env("DSC_HOME", "variable")).starts_with("variable:")
    );
    assert!(whoami(base().env("DSC_HOME", "variable").args(["--home", "flag"])).starts_with("flag:"));
    assert!(whoami(base().args(["--user", "alice", "--home", "flag"])).starts_with("alice:"));
}

#[test]
fn a_home_that_others_can_reach_is_refused() {
    let place = Place::new();
    let home = place.path("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("something"), "").unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(place.path("pw"), "secret-password\n").unwrap();
    let arguments = ["login", "--server", "h", "--user", "alice", "--no-passphrase", "--password-file", "pw"];
    let errors = failed(&place.run(&arguments), 1);
    assert!(errors.contains("chmod 700"), "{errors}");
}

#[test]
fn colours_are_there_when_they_are_wanted() {
    let place = Place::new();
    place.settings("servr = 1");
    let painted = |command: &mut Command| text(&command.arg("whoami").output().unwrap().stderr).contains('\u{1b}');
    assert!(!painted(&mut place.command()), "not into a pipe");
    assert!(painted(place.command().args(["--color", "always"])));
    assert!(painted(place.command().args(["--color", "always"]).env("NO_COLOR", "1")), "the flag says more");
    assert!(!painted(place.command().args(["--color", "never"]).env("CLICOLOR_FORCE", "1")));
    // The file says less than NO_COLOR.
    place.settings("color = \"always\"");
    let painted = |command: &mut Command| done(&command.arg("whoami").output().unwrap()).contains('\u{1b}');
    let named = || {
        let mut command = place.command();
        command.args(["--user", "alice"]);
        command
    };
    assert!(painted(&mut named()));
    assert!(!painted(named().env("NO_COLOR", "1")));
    assert!(!painted(named().args(["--color", "never"])));
    let help = |arguments: &[&str]| done(&place.run(arguments)).contains('\u{1b}');
    assert!(help(&["--help", "--color", "always"]) && !help(&["--help"]));
}

#[test]
fn a_closed_output_ends_it_quietly() {
    let place = Place::new();
    for arguments in [&["schema"][..], &["completions", "bash"], &["man"], &["whoami", "--json"], &["--help"]] {
        let mut child = place.command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(failed(&output, 0), "", "{arguments:?}");
    }
}

#[test]
fn completions_are_read_by_their_shells() {
    let place = Place::new();
    for (shell, begins) in [("bash", "_dsc()"), ("zsh", "#compdef dsc"), ("fish", "# Print an optspec")] {
        let script = done(&place.run(&["completions", shell]));
        assert!(script.starts_with(begins), "{script}");
        for name in commands(&place) {
            assert!(script.contains(&name), "{shell}: {name}");
        }
        assert!(script.contains("passphrase-file"));
        let file = place.path(shell);
        std::fs::write(&file, script).unwrap();
        // A shell that is not there cannot be asked.
        if let Ok(checked) = Command::new(shell).arg("-n").arg(&file).output() {
            assert!(checked.status.success(), "{shell}: {}", text(&checked.stderr));
        }
    }
    for shell in ["elvish", "powershell"] {
        assert!(done(&place.run(&["completions", shell])).contains("dsc"));
    }
}

#[test]
fn the_manual_page_renders() {
    let place = Place::new();
    for (arguments, holds) in [(&["man"][..], "end to end encrypted"), (&["man", "send"], "standard input")] {
        let page = done(&place.run(arguments));
        assert!(page.contains(".TH dsc") && page.replace("\\-", "-").contains(holds), "{page}");
        let file = place.path("page.1");
        std::fs::write(&file, page).unwrap();
        let render = Command::new("man").args(["--warnings", "-l"]).arg(&file).env("MANWIDTH", "100").output();
        if let Ok(rendered) = render {
            assert!(rendered.status.success(), "{}", text(&rendered.stderr));
            assert!(text(&rendered.stdout).contains("SYNOPSIS") && rendered.stderr.is_empty());
        }
    }
}

#[test]
fn the_schema_is_printed() {
    let place = Place::new();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dsc.schema.json");
    assert_eq!(done(&place.run(&["schema"])), std::fs::read_to_string(committed).unwrap());
}

#[test]
fn envelopes_are_inspected_without_keys() {
    let place = Place::new();
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/own.json");
    let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(vectors).unwrap()).unwrap();
    // Lines that open: with the handshake and without, to a room. The bytes 01 03 and 01 04 in base64.
    let opens = vectors["lines"].as_array().unwrap().iter().filter(|line| line.get("inner").is_some());
    let bodies: Vec<&str> =
        opens.filter_map(|line| line["body"].as_str()).filter(|body| body.starts_with("e2e:")).collect();
    let multi = || bodies.iter().filter(|body| ["AQQ", "AQR", "AQS", "AQT"].contains(&&body[4..7]));
    let (long, short) =
        (multi().max_by_key(|body| body.len()).unwrap(), multi().min_by_key(|body| body.len()).unwrap());
    let group = bodies.iter().find(|body| ["AQM", "AQN", "AQO", "AQP"].contains(&&body[4..7])).unwrap();
    let input = format!(
        "* msg 7 2026-01-02T03:04:05.000Z bob alice :{long}\n\n/msg #r {group}\r\n{}\n",
        short.strip_prefix("e2e:").unwrap()
    );
    let mut got = done(&place.run_with(&["inspect"], input.as_bytes()));
    got.push_str(&done(&place.run_with(&["inspect", "--json"], input.as_bytes())));
    golden("inspect.txt", &got);
    assert!(!place.path("home").exists());
    // What is none is named, and the rest is shown.
    let errors = failed(&place.run_with(&["inspect"], b"OK msg id=7\n* msg 7 x bob alice :hello\n"), 1);
    assert!(errors.contains("lines 1, 2 hold no envelope"), "{errors}");
    let mixed = place.run_with(&["inspect"], format!("{group}\ne2e:AQ==\n").as_bytes());
    assert!(failed(&mixed, 1).contains("line 2 holds no envelope") && text(&mixed.stdout).starts_with("group "));
    failed(&place.run_with(&["inspect"], b""), 1);
    failed(&place.run_with(&["inspect"], &vec![b'x'; 200_000]), 1);
    failed(&place.run_with(&["inspect"], b"\xff\x00\n"), 1);
}

#[test]
fn a_person_at_a_terminal_is_asked() {
    let place = Place::new();
    // `script` gives the program a terminal, on which `typed` is typed.
    let at_terminal = |arguments: &str, typed: &str| {
        let mut command = Command::new("script");
        command.arg("-qec").arg(format!("'{BINARY}' {arguments}")).arg("/dev/null").env_remove("NO_COLOR");
        command.env("DSC_HOME", place.path("home")).current_dir(place.0.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), text(&output.stdout))
    };
    let (exit, said) = at_terminal("init --user alice", "correct horse\nanother\n");
    assert!(exit == Some(1) && said.contains("the two passphrases differ; nothing was changed"), "{said}");
    assert!(!place.path("home/store.db").exists());
    let (exit, said) = at_terminal("init --user alice", "\n");
    assert!(exit == Some(1) && said.contains("the passphrase was not entered"), "{said}");
    let (exit, said) = at_terminal("init --user alice", "correct horse\ncorrect horse\n");
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains("New passphrase of the key store: ") && said.contains("Again: "), "{said}");
    let (exit, said) = at_terminal("whoami", "wrong\ncorrect horse\n");
    assert!(exit == Some(0) && said.contains("wrong passphrase; try again") && said.contains("device "), "{said}");
    let (exit, said) = at_terminal("whoami", "wrong\nwrong\nwrong\ncorrect horse\n");
    assert!(exit == Some(1) && said.matches("Passphrase of the key store").count() == 3, "{said}");
    let (exit, said) = at_terminal("passphrase --remove", "correct horse\nn\n");
    assert!(exit == Some(1) && said.contains("[y/N]") && said.contains("not done"), "{said}");
    let (exit, said) = at_terminal("passphrase --remove", "correct horse\nYes\n");
    assert_eq!(exit, Some(0), "{said}");
    done(&place.run(&["whoami"]));
}
