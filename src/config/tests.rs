use std::collections::BTreeSet;

use super::keys::{KEYS, Kind, Zero};
use super::*;

/// Errors and warnings of a text, as the operator sees them.
fn errors(text: &str) -> String {
    match parse(Path::new("c.toml"), text) {
        Ok(loaded) => format!("accepted: {:?}", loaded.config),
        Err(error) => error.to_string(),
    }
}

fn config(text: &str) -> Config {
    parse(Path::new("c.toml"), text).unwrap_or_else(|error| panic!("{error}")).config
}

#[track_caller]
fn golden(text: &str, expected: &str) {
    assert_eq!(errors(text), expected.trim_start_matches('\n').trim_end(), "for:\n{text}");
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(config(""), Config::default());
    assert_eq!(config("# nothing\n[limits]\n[accounts.argon2]\n"), Config::default());
    let settings = Config::default().settings();
    assert_eq!(
        settings,
        Settings {
            server_name: "downstream".to_owned(),
            registration: Registration::Open,
            sessions_per_account: 8,
            messages_per_second: 10,
            message_burst: 30,
            logins_per_minute: 10,
            registrations_per_hour: 20,
            login_timeout: Some(Duration::from_secs(120)),
            idle_timeout: None,
            outbound_bytes: 262_144,
            retention_days: None,
            max_file: 4 << 30,
            file_limits: FileLimits { quota: Some(10 << 30), total: None },
            partial_hours: Some(24),
            file_days: None,
        }
    );
    let limits = Config::default().limits();
    assert_eq!(
        limits,
        Limits {
            connections: 20_000,
            connections_per_address: 64,
            handshake: Some(Duration::from_secs(10)),
            line: Some(Duration::from_secs(300)),
            stalled: Some(Duration::from_secs(120)),
            outbound_bytes: 262_144,
        }
    );
    let argon2 = Config::default().argon2();
    assert_eq!((argon2.memory_kib, argon2.iterations, argon2.parallelism), (19_456, 2, 1));
    assert_eq!(Config::default().listen, ["127.0.0.1:7667".parse().expect("an address")]);
    assert_eq!(Config::default().data, Path::new("./data"));
    assert_eq!(Config::default().certificate, Path::new("./certs/cert.pem"));
    assert_eq!(Config::default().key, Path::new("./certs/key.pem"));
}

#[test]
fn every_key_is_read_into_its_own_field() {
    let config = config(
        r#"
listen = ["0.0.0.0:1", "[::]:2"]
data = "/d"
name = "chat.example"
[tls]
cert = "/c"
key = "/k"
[accounts]
registration = "invite"
sessions_per_account = 101
[accounts.argon2]
memory_kib = 8_192
iterations = 3
parallelism = 0x4
[limits]
messages_per_second = 105
message_burst = 106
logins_per_minute = 107
registrations_per_hour = 108
connections = 109
connections_per_address = 110
handshake_seconds = 111
login_seconds = 112
line_seconds = 113
outbound_bytes = 65536
stalled_seconds = 115
idle_seconds = 116
[retention]
days = 117
[files]
max_file = 118
quota = "119 MiB"
total = "120GiB"
partial_hours = 121
days = 122
"#,
    );
    assert_eq!(config.listen, ["0.0.0.0:1".parse().expect("v4"), "[::]:2".parse().expect("v6")]);
    assert_eq!((config.data.as_path(), config.certificate.as_path()), (Path::new("/d"), Path::new("/c")));
    assert_eq!(config.key, Path::new("/k"));
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(
        config.settings(),
        Settings {
            server_name: "chat.example".to_owned(),
            registration: Registration::Invite,
            sessions_per_account: 101,
            messages_per_second: 105,
            message_burst: 106,
            logins_per_minute: 107,
            registrations_per_hour: 108,
            login_timeout: seconds(112),
            idle_timeout: seconds(116),
            outbound_bytes: 65_536,
            retention_days: Some(117),
            max_file: 118,
            file_limits: FileLimits { quota: Some(119 << 20), total: Some(120 << 30) },
            partial_hours: Some(121),
            file_days: Some(122),
        }
    );
    assert_eq!(
        config.limits(),
        Limits {
            connections: 109,
            connections_per_address: 110,
            handshake: seconds(111),
            line: seconds(113),
            stalled: seconds(115),
            outbound_bytes: 65_536,
        }
    );
    assert_eq!(config.argon2(), HashParams { memory_kib: 8192, iterations: 3, parallelism: 4 });
}

#[test]
fn zero_switches_off_what_it_may_and_a_deadline_with_a_warning() {
    let zeros: Vec<&str> = KEYS
        .iter()
        .filter(|key| matches!(key.kind, Kind::Number { zero: Zero::Off | Zero::OffWarned, .. }))
        .filter_map(|key| key.path.strip_prefix("limits."))
        .collect();
    let mut text = String::from(
        "[retention]\ndays = 0\n[files]\nmax_file = 0\nquota = \"0\"\ntotal = \"0 GiB\"\npartial_hours = 0\ndays = 0\n[limits]\n",
    );
    for key in &zeros {
        text.push_str(&format!("{key} = 0\n"));
    }
    let loaded = parse(Path::new("c.toml"), &text).expect("a usable file");
    let settings = loaded.config.settings();
    assert_eq!((settings.messages_per_second, settings.message_burst), (0, 0));
    assert_eq!((settings.logins_per_minute, settings.registrations_per_hour), (0, 0));
    assert_eq!((settings.login_timeout, settings.idle_timeout, settings.retention_days), (None, None, None));
    assert_eq!((settings.max_file, settings.file_limits), (0, FileLimits { quota: None, total: None }));
    assert_eq!((settings.partial_hours, settings.file_days), (None, None));
    let limits = loaded.config.limits();
    assert_eq!((limits.connections, limits.connections_per_address), (usize::MAX, usize::MAX));
    assert_eq!((limits.handshake, limits.line, limits.stalled), (None, None, None));
    let mut warned: Vec<&str> = loaded.warnings.iter().filter_map(|text| text.split(": ").nth(1)).collect();
    warned.sort_unstable();
    assert_eq!(
        warned,
        ["limits.handshake_seconds", "limits.line_seconds", "limits.login_seconds", "limits.stalled_seconds"]
    );
    let one = parse(Path::new("c.toml"), "[limits]\nline_seconds = 0\n").expect("a usable file");
    assert_eq!(
        one.warnings,
        [
            "c.toml:2: limits.line_seconds: 0 switches this deadline off: who does nothing keeps a place for ever; default 300"
        ]
    );
}

#[test]
fn every_problem_is_reported_at_once_with_its_line() {
    golden(
        r#"
listen = "127.0.0.1:7667"
data = ""
nam = "x"

[accounts]
registration = "maybe"
sessions_per_account = 0

[limits]
connections = 2_000_000
handshake_seconds = -1
outbound_bytes = 1024
max_connections = 5
"#,
        r#"
c.toml:2: listen: is a string, but must be a list; allowed: a list of 1 to 16 of "ADDRESS:PORT", such as ["0.0.0.0:7667", "[::]:7667"]
c.toml:3: data: is empty; allowed: a path in quotes
c.toml:4: nam: unknown key; the nearest known key is name
c.toml:7: accounts.registration: "maybe" is none of them; allowed: "open", "invite", "closed"
c.toml:8: accounts.sessions_per_account: 0 is too small; allowed: 1 to 1000
c.toml:11: limits.connections: 2000000 is too large; allowed: 1 to 1000000, or 0 for off
c.toml:12: limits.handshake_seconds: -1 is too small; allowed: 1 to 86400, or 0 for off
c.toml:13: limits.outbound_bytes: 1024 is too small; allowed: 65536 to 67108864
c.toml:14: limits.max_connections: unknown key; the nearest known key is limits.connections
"#,
    );
}

#[test]
fn each_kind_of_wrong_value_says_what_is_allowed() {
    let listen = r#"allowed: a list of 1 to 16 of "ADDRESS:PORT", such as ["0.0.0.0:7667", "[::]:7667"]"#;
    let size =
        "allowed: 1 to 32 TiB, as a number of bytes or a text such as \"4 GiB\" (KiB, MiB, GiB, TiB), or 0 for off";
    let many = format!("listen = [{}]", (0..17).map(|n| format!("\"127.0.0.1:{n}\",")).collect::<String>());
    let long = "x".repeat(64);
    for (text, expected) in [
        ("listen = []", format!("listen: is empty; {listen}")),
        ("listen = [7667]", format!("listen: is a whole number, but must be a string in quotes; {listen}")),
        ("listen = [\"localhost:7667\"]", format!("listen: \"localhost:7667\" is not an address with a port; {listen}")),
        ("listen = [\"127.0.0.1\"]", format!("listen: \"127.0.0.1\" is not an address with a port; {listen}")),
        ("listen = [\"[::1]:5\", \"[::1]:5\"]", format!("listen: [::1]:5 is there twice; {listen}")),
        (&many, format!("listen: has 17 addresses; {listen}")),
        ("data = true", "data: is a truth value, but must be a string in quotes; allowed: a path in quotes".to_owned()),
        ("data = \"a\\u0000b\"", "data: has a NUL in it; allowed: a path in quotes".to_owned()),
        ("name = \"\"", "name: is empty; allowed: 1 to 63 of A-Z a-z 0-9 . _ - in quotes".to_owned()),
        (
            "name = \"my server\\u001b\"",
            "name: \"my server\\u{1b}\" has other characters in it; allowed: 1 to 63 of A-Z a-z 0-9 . _ - in quotes".to_owned(),
        ),
        (
            &format!("name = \"{long}\""),
            "name: has 64 bytes; allowed: 1 to 63 of A-Z a-z 0-9 . _ - in quotes".to_owned(),
        ),
        (
            "tls = 3",
            "tls: is a whole number, but must be a section: write [tls] on a line of its own".to_owned(),
        ),
        ("tls.cert = \"x\"", "tls.cert: is set without tls.key; allowed: both or none of the two".to_owned()),
        ("tls.key = \"x\"", "tls.key: is set without tls.cert; allowed: both or none of the two".to_owned()),
        (
            "accounts.registration = 1",
            "accounts.registration: is a whole number, but must be a string in quotes; allowed: \"open\", \"invite\", \"closed\"".to_owned(),
        ),
        (
            "accounts.argon2.memory_kib = 8191",
            "accounts.argon2.memory_kib: 8191 is too small; allowed: 8192 to 1048576".to_owned(),
        ),
        (
            "accounts.argon2.iterations = 65",
            "accounts.argon2.iterations: 65 is too large; allowed: 1 to 64".to_owned(),
        ),
        (
            "accounts.argon2.parallelism = 17",
            "accounts.argon2.parallelism: 17 is too large; allowed: 1 to 16".to_owned(),
        ),
        (
            "limits.connections = 1.5",
            "limits.connections: is a fraction, but must be a whole number; allowed: 1 to 1000000, or 0 for off".to_owned(),
        ),
        (
            "limits.connections = \"5\"",
            "limits.connections: is a string, but must be a whole number; allowed: 1 to 1000000, or 0 for off".to_owned(),
        ),
        (
            "limits.connections = 2020-02-02",
            "limits.connections: is a date, but must be a whole number; allowed: 1 to 1000000, or 0 for off".to_owned(),
        ),
        (
            "limits.connections = [1]",
            "limits.connections: is a list, but must be a whole number; allowed: 1 to 1000000, or 0 for off".to_owned(),
        ),
        (
            "limits.connections = { a = 1 }",
            "limits.connections: is a section, but must be a whole number; allowed: 1 to 1000000, or 0 for off".to_owned(),
        ),
        (
            "retention.days = 99999999999999999999999999999999999999999999",
            "retention.days: 99999999999999999999999999999999999999999999 is too large; allowed: 1 to 36500, or 0 for off".to_owned(),
        ),
        ("files.max_file = true", format!("files.max_file: is a truth value, but must be a size; {size}")),
        ("files.max_file = \"4 GB\"", format!("files.max_file: \"4 GB\" is no size; {size}")),
        ("files.max_file = \"2000 TiB\"", format!("files.max_file: 2000 TiB is too large; {size}")),
        ("files.max_file = -1", format!("files.max_file: -1 is too small; {size}")),
        (
            "files.quota = \"1 KiB\"",
            format!("files.quota: 1 KiB is too small; {}", size.replace("1 to 32 TiB", "4 KiB to 1024 TiB")),
        ),
    ] {
        golden(text, &format!("c.toml:1: {expected}"));
    }
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    for (text, path, nearest) in [
        ("lisen = []", "lisen", "listen"),
        ("connections = 5", "connections", "limits.connections"),
        ("[tsl]\ncert = \"x\"", "tsl.cert", "tls.cert"),
        ("[limits]\nmessage_per_second = 5", "limits.message_per_second", "limits.messages_per_second"),
        ("[account]\nregistration = \"open\"", "account.registration", "accounts.registration"),
        ("[argon2]\nmemory_kib = 5", "argon2.memory_kib", "accounts.argon2.memory_kib"),
        ("\"a\\nb\" = 1", "a\\nb", "name"),
    ] {
        let line = text.lines().count();
        golden(text, &format!("c.toml:{line}: {path}: unknown key; the nearest known key is {nearest}"));
    }
    golden("[retentoin]", "c.toml:1: retentoin: unknown section; the nearest known section is retention");
}

#[test]
fn what_is_no_toml_is_reported_beside_the_rest() {
    golden(
        "name = \nlimits.connections = -5\nname2 = 'x'\n",
        "
c.toml:1: not TOML: string values must be quoted, expected literal string
c.toml:2: limits.connections: -5 is too small; allowed: 1 to 1000000, or 0 for off
c.toml:3: name2: unknown key; the nearest known key is name
",
    );
    golden("name = \"a\"\nname = \"b\"\n", "c.toml:2: not TOML: duplicate key");
}

#[test]
fn the_defaults_are_within_their_own_bounds() {
    let paths: BTreeSet<&str> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(paths.len(), KEYS.len(), "a key is there twice");
    for key in KEYS {
        let text = format!("{} = {}\n", key.path, key.kind.default_text());
        if key.path.starts_with("tls.") {
            continue; // come as a pair; `the_example_file_is_the_code` has both
        }
        assert_eq!(config(&text), Config::default(), "{}", key.path);
        assert!(key.doc.ends_with('.') && !key.doc.contains("  "), "{}", key.path);
    }
}

/// The text between two marks of a file, replaced on request and compared otherwise.
#[track_caller]
fn same_as_file(name: &str, expected: &str, marks: Option<(&str, &str)>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let whole = match marks {
        None => expected.to_owned(),
        Some((begin, end)) => {
            let (head, rest) = found.split_once(begin).expect("the first mark");
            let (_, tail) = rest.split_once(end).expect("the second mark");
            format!("{head}{begin}\n{expected}{end}{tail}")
        }
    };
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &whole).expect("the file to be writable");
    } else {
        assert_eq!(found, whole, "{name} differs from the code; run the test again with UPDATE_GOLDEN=1");
    }
}

#[test]
fn the_example_file_is_the_code() {
    let text = example_toml();
    assert_eq!(config(&text), Config::default());
    for key in KEYS {
        let name = key.path.rsplit('.').next().expect("a name");
        assert!(text.contains(&format!("\n{name} = ")), "{} is missing", key.path);
    }
    same_as_file("downstream.example.toml", &text, None);
}

#[test]
fn the_manual_has_the_table_of_keys() {
    same_as_file("docs/operating.md", &keys_as_markdown(), Some(("<!-- keys -->", "<!-- end of keys -->")));
}

#[test]
fn a_file_is_found_missed_or_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("c.toml");
    let source = Source { file: Some(file.clone()), ..Source::default() };
    let refused = |source: &Source| source.load().expect_err("a problem").to_string();

    let missing = "no such file; leave --config out to run with defaults, or begin with downstream.example.toml";
    assert_eq!(refused(&source), format!("{}: {missing}", file.display()));
    std::fs::write(&file, b"name = \"a\"\n# \xff\n").expect("a file");
    assert_eq!(refused(&source), format!("{}:2: not UTF-8 text", file.display()));
    std::fs::write(&file, vec![b'#'; 1_048_577]).expect("a file");
    assert_eq!(refused(&source), format!("{}: is larger than 1048576 bytes; is it the right file?", file.display()));
    let directory = Source { file: Some(dir.path().to_owned()), ..Source::default() };
    assert!(refused(&directory).contains(": cannot be read: "), "{}", refused(&directory));

    std::fs::write(&file, "listen = [\"127.0.0.1:1\"]\ndata = \"x\"\n").expect("a file");
    let loaded = source.load().expect("a usable file");
    assert_eq!((loaded.config.data.as_path(), loaded.file), (Path::new("x"), Some(file.clone())));
    let over = Source {
        listen: vec!["127.0.0.1:2".parse().expect("an address")],
        data: Some(PathBuf::from("y")),
        ..source.clone()
    };
    let config = over.load().expect("a usable file").config;
    assert_eq!((config.listen.as_slice(), config.data.as_path()), (over.listen.as_slice(), Path::new("y")));
}

#[test]
fn a_reload_changes_all_but_what_needs_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("c.toml");
    let source = Source { file: Some(file.clone()), ..Source::default() };
    std::fs::write(&file, "name = \"one\"\n").expect("a file");
    let running = source.load().expect("a usable file").config;

    std::fs::write(&file, "name = \"two\"\n[limits]\nline_seconds = 0\n").expect("a file");
    let reloaded = source.reload(&running).expect("a usable file");
    assert_eq!((reloaded.config.name.as_str(), reloaded.config.limits().line), ("two", None));
    assert_eq!((reloaded.restart.len(), reloaded.warnings.len()), (0, 1));

    std::fs::write(&file, "name = \"three\"\ndata = \"/other\"\nlisten = [\"127.0.0.1:9\"]\n").expect("a file");
    let reloaded = source.reload(&running).expect("a usable file");
    assert_eq!(reloaded.restart, ["listen", "data"]);
    assert_eq!(reloaded.config, Config { name: "three".to_owned(), ..running.clone() });

    std::fs::write(&file, "nme = 3\n").expect("a file");
    assert_eq!(
        source.reload(&running).expect_err("a problem").to_string(),
        format!("{}:1: nme: unknown key; the nearest known key is name", file.display())
    );
}
