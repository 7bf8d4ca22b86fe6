//! The one list of configuration keys. Parsing, bounds, error texts, the example file and the table in
//! `docs/operating.md` all follow from it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Config, size};
use crate::hub::settings::Registration;
use crate::ops;

/// Most addresses in `listen`: more than any machine needs, few enough that a mistake is noticed.
pub(super) const LISTEN_MAX: usize = 16;
/// Longest server name, in bytes: the longest label of a host name (RFC 1035, 2.3.4), because it also
/// becomes a name in the first certificate.
pub(super) const NAME_MAX: usize = 63;
/// One key of the configuration file.
pub(super) struct Key {
    /// Its full name, sections included: `limits.connections`.
    pub path: &'static str,
    /// What it takes, and where the value goes.
    pub kind: Kind,
    /// What it means and why its default is what it is.
    pub doc: &'static str,
    /// Whether SIGHUP changes it in a running daemon.
    pub reload: bool,
}

/// What a key takes, with its default, its bounds and the field that it sets.
pub(super) enum Kind {
    /// A list of `ADDRESS:PORT`.
    Addresses { default: &'static [&'static str], field: fn(&mut Config) -> &mut Vec<SocketAddr> },
    /// A path; a relative one starts at the working directory.
    Path { default: &'static str, field: fn(&mut Config) -> &mut PathBuf },
    /// A word without spaces.
    Name { default: &'static str, field: fn(&mut Config) -> &mut String },
    /// Who may register.
    Registration { default: Registration, field: fn(&mut Config) -> &mut Registration },
    /// A number of bytes, also as a text such as "4 GiB". 0 switches off what the key's description says.
    Size { default: u64, min: u64, max: u64, field: fn(&mut Config) -> &mut u64 },
    /// A whole number.
    Number { default: u64, min: u64, max: u64, zero: Zero, field: fn(&mut Config) -> &mut u64 },
}

/// What 0 means to a number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    /// Not allowed.
    Refused,
    /// Switches the rule off.
    Off,
    /// Switches a deadline off that protects the daemon: allowed, with a warning.
    OffWarned,
}

/// The values of `accounts.registration`.
pub(super) const REGISTRATION: [Registration; 3] = [Registration::Open, Registration::Invite, Registration::Closed];

impl Kind {
    /// What a value must be, as an error says it.
    pub(super) fn allowed(&self) -> String {
        match self {
            Kind::Addresses { .. } => {
                format!(
                    "allowed: a list of 1 to {LISTEN_MAX} of \"ADDRESS:PORT\", such as [\"0.0.0.0:7667\", \"[::]:7667\"]"
                )
            }
            Kind::Path { .. } => "allowed: a path in quotes".to_owned(),
            Kind::Name { .. } => format!("allowed: 1 to {NAME_MAX} of A-Z a-z 0-9 . _ - in quotes"),
            Kind::Registration { .. } => {
                let words = REGISTRATION.map(|word| format!("\"{}\"", word.as_str()));
                format!("allowed: {}", words.join(", "))
            }
            Kind::Size { min, max, .. } => format!(
                "allowed: {} to {}, as a number of bytes or a text such as \"4 GiB\" (KiB, MiB, GiB, TiB), or 0 for off",
                size::show(*min),
                size::show(*max)
            ),
            Kind::Number { min, max, zero: Zero::Refused, .. } => format!("allowed: {min} to {max}"),
            Kind::Number { min, max, .. } => format!("allowed: {min} to {max}, or 0 for off"),
        }
    }

    /// The default as it stands in the file.
    pub(super) fn default_text(&self) -> String {
        match self {
            Kind::Addresses { default, .. } => {
                let quoted: Vec<String> = default.iter().map(|address| format!("\"{address}\"")).collect();
                format!("[{}]", quoted.join(", "))
            }
            Kind::Path { default, .. } | Kind::Name { default, .. } => format!("\"{default}\""),
            Kind::Registration { default, .. } => format!("\"{}\"", default.as_str()),
            Kind::Size { default: 0, .. } => "0".to_owned(),
            Kind::Size { default, .. } => format!("\"{}\"", size::show(*default)),
            Kind::Number { default, .. } => default.to_string(),
        }
    }

    /// Puts the value of `running` into `config`; whether they differed.
    pub(super) fn keep(&self, config: &mut Config, running: &Config) -> bool {
        fn swap<T: PartialEq>(new: &mut T, old: &mut T) -> bool {
            let differs = new != old;
            std::mem::swap(new, old);
            differs
        }
        let mut running = running.clone();
        match self {
            Kind::Addresses { field, .. } => swap(field(config), field(&mut running)),
            Kind::Path { field, .. } => swap(field(config), field(&mut running)),
            Kind::Name { field, .. } => swap(field(config), field(&mut running)),
            Kind::Registration { field, .. } => swap(field(config), field(&mut running)),
            Kind::Size { field, .. } | Kind::Number { field, .. } => swap(field(config), field(&mut running)),
        }
    }

    /// Sets the default.
    pub(super) fn apply_default(&self, config: &mut Config) {
        match self {
            // A default that does not parse is found by `the_defaults_are_within_their_own_bounds`.
            Kind::Addresses { default, field } => {
                *field(config) = default.iter().filter_map(|text| text.parse().ok()).collect();
            }
            Kind::Path { default, field } => *field(config) = PathBuf::from(default),
            Kind::Name { default, field } => *field(config) = (*default).to_owned(),
            Kind::Registration { default, field } => *field(config) = *default,
            Kind::Size { default, field, .. } | Kind::Number { default, field, .. } => *field(config) = *default,
        }
    }
}

/// Shorthand for a number that a reload changes.
const fn number(
    path: &'static str,
    (default, min, max, zero): (u64, u64, u64, Zero),
    field: fn(&mut Config) -> &mut u64,
    doc: &'static str,
) -> Key {
    Key { path, kind: Kind::Number { default, min, max, zero, field }, doc, reload: true }
}

/// Shorthand for a size that a reload changes.
const fn bytes(
    path: &'static str,
    (default, min, max): (u64, u64, u64),
    field: fn(&mut Config) -> &mut u64,
    doc: &'static str,
) -> Key {
    Key { path, kind: Kind::Size { default, min, max, field }, doc, reload: true }
}

const DAY: u64 = 86_400;
const GIB: u64 = 1 << 30;
/// More than any disk has; far below what 64 bits and the database can count.
const SIZE_MAX: u64 = 1 << 50;

/// Where the certificate is looked for unless the file names another place.
pub(super) const DEFAULT_CERT: &str = "./certs/cert.pem";
/// Where its key is.
pub(super) const DEFAULT_KEY: &str = "./certs/key.pem";

/// Every key, in the order of the example file: keys without a section first, then section by section.
pub(super) static KEYS: &[Key] = &[
    Key {
        path: "listen",
        kind: Kind::Addresses { default: &["127.0.0.1:7667"], field: |c| &mut c.listen },
        doc: "Addresses to listen on. The default is reachable from this machine only, so that a first try \
              exposes nothing; \"0.0.0.0:7667\" and \"[::]:7667\" stand for every IPv4 and IPv6 address. Port 0 \
              takes a free one.",
        reload: false,
    },
    Key {
        path: "data",
        kind: Kind::Path { default: "./data", field: |c| &mut c.data },
        doc: "Directory of the database, of the files that people send, and of the key that seals both. Back up all three.",
        reload: false,
    },
    Key {
        path: "name",
        kind: Kind::Name { default: "downstream", field: |c| &mut c.name },
        doc: "Name of the server in its greeting and in a certificate that it makes. Not the host name by \
              default: strangers see it.",
        reload: true,
    },
    Key {
        path: "tls.cert",
        kind: Kind::Path { default: DEFAULT_CERT, field: |c| &mut c.certificate },
        doc: "Certificate chain, PEM, the server's own first. Where neither this nor the key exists at the \
              default paths, a self-signed pair is made. A file named here must exist.",
        reload: true,
    },
    Key {
        path: "tls.key",
        kind: Kind::Path { default: DEFAULT_KEY, field: |c| &mut c.key },
        doc: "Private key of the certificate, PEM, without a passphrase. Keep it readable by the daemon only.",
        reload: true,
    },
    Key {
        path: "accounts.registration",
        kind: Kind::Registration { default: Registration::Open, field: |c| &mut c.registration },
        doc: "Who may make an account over the wire: \"open\" everybody, \"invite\" who has a code of \
              `downstream invite`, \"closed\" nobody. Open, because the default address is local; think again \
              when you change `listen`.",
        reload: true,
    },
    number(
        "accounts.sessions_per_account",
        (8, 1, 1000, Zero::Refused),
        |c| &mut c.sessions_per_account,
        "Live sessions of one account. 8 is a person's devices with room to spare; 1 is the strict rule of one \
         login an account.",
    ),
    number(
        "accounts.argon2.memory_kib",
        (19_456, ops::ARGON2_MEMORY_KIB_MIN as u64, ops::ARGON2_MEMORY_KIB_MAX as u64, Zero::Refused),
        |c| &mut c.argon2_memory_kib,
        "Memory of one Argon2id password hash in KiB; each of up to four hasher threads holds so much. The three \
         defaults are OWASP's recommendation. Accounts move to new values at their next login.",
    ),
    number(
        "accounts.argon2.iterations",
        (2, 1, ops::ARGON2_ITERATIONS_MAX as u64, Zero::Refused),
        |c| &mut c.argon2_iterations,
        "Passes over that memory.",
    ),
    number(
        "accounts.argon2.parallelism",
        (1, 1, ops::ARGON2_PARALLELISM_MAX as u64, Zero::Refused),
        |c| &mut c.argon2_parallelism,
        "Lanes of that memory. One thread computes them all, so more of them do not make a login faster.",
    ),
    number(
        "limits.messages_per_second",
        (10, 1, 1_000_000, Zero::Off),
        |c| &mut c.messages_per_second,
        "Messages that an account may send in a second, over time; each target counts. Nobody types faster, and a \
         flood stays readable.",
    ),
    number(
        "limits.message_burst",
        (30, 1, 1_000_000, Zero::Off),
        |c| &mut c.message_burst,
        "Messages that an account may send at once before the rate above counts. A pasted page fits. Off means one at \
         a time.",
    ),
    number(
        "limits.logins_per_minute",
        (10, 1, 1_000_000, Zero::Off),
        |c| &mut c.logins_per_minute,
        "Failed logins in a minute, counted for an address (IPv6: a /64) and for an account. Slows guessing; the \
         owner never waits longer than a minute.",
    ),
    number(
        "limits.registrations_per_hour",
        (20, 1, 1_000_000, Zero::Off),
        |c| &mut c.registrations_per_hour,
        "New accounts in an hour from one address. A class in one room gets in, a script does not get far.",
    ),
    number(
        "limits.connections",
        (20_000, 1, 1_000_000, Zero::Off),
        |c| &mut c.connections,
        "Open connections in all. Each takes a file descriptor (see LimitNOFILE) and some tens of KiB.",
    ),
    number(
        "limits.connections_per_address",
        (64, 1, 1_000_000, Zero::Off),
        |c| &mut c.connections_per_address,
        "Open connections from one address (IPv6: a /64). An office behind one address fits; raise it for a \
         larger one.",
    ),
    number(
        "limits.handshake_seconds",
        (10, 1, DAY, Zero::OffWarned),
        |c| &mut c.handshake_seconds,
        "Time for the TLS handshake. Ten seconds is patient with a bad line and short for who only holds a place.",
    ),
    number(
        "limits.login_seconds",
        (120, 1, DAY, Zero::OffWarned),
        |c| &mut c.login_seconds,
        "Time from the handshake to a login. Enough for a person who types a registration by hand.",
    ),
    number(
        "limits.line_seconds",
        (300, 1, DAY, Zero::OffWarned),
        |c| &mut c.line_seconds,
        "Time to finish a line once begun. A person who types straight into the connection may stop and think.",
    ),
    number(
        "limits.outbound_bytes",
        (262_144, 65_536, 67_108_864, Zero::Refused),
        |c| &mut c.outbound_bytes,
        "Bytes that wait for one slow reader; what comes beyond is read back from the log later, so nothing is \
         lost. 256 KiB is many seconds of a bad line; times `connections` it is the worst case of memory.",
    ),
    number(
        "limits.stalled_seconds",
        (120, 1, DAY, Zero::OffWarned),
        |c| &mut c.stalled_seconds,
        "Time that a reader with a full queue may take nothing at all before it is let go. Its messages stay unread.",
    ),
    number(
        "limits.idle_seconds",
        (0, 1, 31_536_000, Zero::Off),
        |c| &mut c.idle_seconds,
        "Time that a logged-in session may send nothing. Off: waiting for messages is what people are here for.",
    ),
    number(
        "retention.days",
        (0, 1, 36_500, Zero::Off),
        |c| &mut c.retention_days,
        "Days after which messages are deleted, read or not; 0 keeps them for ever, because deleting is the \
         operator's decision.",
    ),
    bytes(
        "files.max_file",
        (4 * GIB, 1, ops::FILE_BYTES_MAX),
        |c| &mut c.max_file,
        "Largest file that may be sent. 4 GiB is an evening's film; a larger one takes a bad line longer than a day. \
         Off: no files at all.",
    ),
    bytes(
        "files.quota",
        (10 * GIB, ops::FILE_BYTES_MIN, SIZE_MAX),
        |c| &mut c.file_quota,
        "What the files of one account may take together, announced ones included, small ones counted as 4 KiB each. \
         10 GiB is two of the largest and what belongs to daily talk.",
    ),
    bytes(
        "files.total",
        (0, ops::FILE_BYTES_MIN, SIZE_MAX),
        |c| &mut c.file_total,
        "The same for all accounts together. Off: as much as the disk holds, less what is kept free for messages.",
    ),
    number(
        "files.partial_hours",
        (24, 1, 8_760, Zero::Off),
        |c| &mut c.partial_hours,
        "Hours after which an upload that neither grows nor is announced again is given up and its bytes are deleted. A day \
         is enough to come back to one that was interrupted.",
    ),
    number(
        "files.days",
        (0, 1, 36_500, Zero::Off),
        |c| &mut c.file_days,
        "Days after which the bytes of a file are deleted; its line in the conversation stays. 0 keeps them as long as \
         the message is kept.",
    ),
];

/// The key of this full name.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether this is a section: some key's name begins with it.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The known key that looks most like `path`: the last part counts twice, so that a key of the right
/// name in the wrong section finds its place.
pub(super) fn nearest(path: &str) -> &'static str {
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    most_alike(KEYS.iter().map(|key| key.path), |known| {
        likeness(path, known) + 2.0 * likeness(&last(path), &last(known))
    })
}

/// The known section that looks most like `path`.
pub(super) fn nearest_section(path: &str) -> &'static str {
    let sections = KEYS.iter().filter_map(|key| key.path.rsplit_once('.')).map(|(section, _)| section);
    most_alike(sections, |known| likeness(path, known))
}

fn likeness(one: &str, other: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(one, other)
}

fn most_alike(known: impl Iterator<Item = &'static str>, score: impl Fn(&str) -> f64) -> &'static str {
    let scored = known.map(|name| (name, score(name)));
    scored.max_by(|one, other| one.1.total_cmp(&other.1)).map_or("", |(name, _)| name)
}
