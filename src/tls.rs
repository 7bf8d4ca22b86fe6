//! Certificates → what a TLS handshake needs.
//!
//! TLS 1.3 and 1.2 by rustls over aws-lc-rs, the hybrid X25519MLKEM768 first among the key exchanges.
//! Client certificates of any issuer are taken, never demanded. The ALPN name `downstream/1` is agreed on
//! where a client offers it; a client that offers none or only others is served without one.

mod client;
mod generate;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{Accepted, AcceptedAlert, ParsedCertificate, ServerConnection, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use crate::logging::Escaped;
use crate::ops::Sha256;
use crate::protocol::{ALPN, Timestamp};

/// TLS 1.2 sessions kept for clients that know session numbers but no tickets. They are rare; with the
/// longest client chain so many take 4 MiB.
const SESSION_CACHE: usize = 256;
/// Tickets after a TLS 1.3 handshake. A client holds one connection open and comes back with one ticket,
/// for which it gets the next; a second would be a second record a handshake that nobody uses.
const TICKETS: usize = 1;
/// Largest certificate or key file, in bytes: the longest chains in use have some tens of KiB.
const PEM_MAX: u64 = 1_048_576;
/// Less than this left, and less than a quarter of the whole life: whatever should have renewed the
/// certificate did not. (Certificates of 90 days are renewed after 60.)
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 86_400);

/// Where the certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    cert: PathBuf,
    key: PathBuf,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The default paths, where a missing pair is made.
    Default,
    /// Named in the configuration.
    Named,
    /// Handed over by systemd (`LoadCredential=`).
    Credentials,
}

impl Files {
    /// Chooses between what the configuration names, what systemd hands over in `credentials` as
    /// `tls-cert` and `tls-key`, and the default paths, in that order. `named` tells which of the first
    /// and the last `cert` and `key` are.
    pub fn choose(cert: &Path, key: &Path, named: bool, credentials: Option<&Path>) -> Files {
        let files = |cert: &Path, key: &Path, origin| Files { cert: cert.to_owned(), key: key.to_owned(), origin };
        if named {
            return files(cert, key, Origin::Named);
        }
        if let Some(dir) = credentials {
            let (handed_cert, handed_key) = (dir.join("tls-cert"), dir.join("tls-key"));
            if handed_cert.exists() || handed_key.exists() {
                return files(&handed_cert, &handed_key, Origin::Credentials);
            }
        }
        files(cert, key, Origin::Default)
    }

    /// Whether [`Files::generate`] would make a pair: neither file is there, and nothing names them.
    pub fn to_be_generated(&self) -> bool {
        // A link to nowhere is something that somebody put there.
        let absent = |path: &Path| matches!(fs::symlink_metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound);
        self.origin == Origin::Default && absent(&self.cert) && absent(&self.key)
    }

    /// Makes a self-signed pair for `name` where none is there and nothing names one. Whether it did.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn generate(&self, name: &str) -> Result<bool, TlsError> {
        let missing = self.to_be_generated();
        if missing {
            generate::self_signed(&self.cert, &self.key, name)?;
        }
        Ok(missing)
    }

    fn missing(&self, path: &Path) -> TlsError {
        let hint = match self.origin {
            Origin::Default => {
                "the other file of the pair is there: put this one back, or move both away to have a new pair made"
            }
            Origin::Named => {
                "the configuration names it: put it there, or take tls.cert and tls.key out to have a self-signed pair made"
            }
            Origin::Credentials => {
                "systemd handed over only the other one: LoadCredential= must name both tls-cert and tls-key"
            }
        };
        TlsError::Missing { path: path.to_owned(), hint }
    }

    /// The bytes of one of the two files.
    fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => self.missing(path),
            _ => TlsError::Unreadable { path: path.to_owned(), error },
        };
        let mut bytes = Zeroizing::new(Vec::new());
        let file = fs::File::open(path).map_err(unreadable)?;
        io::Read::read_to_end(&mut io::Read::take(file, PEM_MAX + 1), &mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > PEM_MAX {
            return Err(TlsError::TooLarge { path: path.to_owned() });
        }
        Ok(bytes)
    }
}

/// What is wrong with the certificate or its key: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that should be there is not.
    #[error("{}: no such file; {hint}", Escaped(path.display()))]
    Missing {
        /// Which.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {error}", Escaped(path.display()))]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: is larger than {PEM_MAX} bytes; is it the right file?", Escaped(path.display()))]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// A file has broken PEM in it.
    #[error("{}: damaged PEM: {}", Escaped(path.display()), Escaped(what))]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What the reader says.
        what: String,
    },
    /// A file has no certificate in it.
    #[error("{}: no certificate in it; a PEM file begins with -----BEGIN CERTIFICATE-----", Escaped(path.display()))]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// A file has no key in it.
    #[error("{}: no private key in it; {hint}", Escaped(path.display()))]
    NoKey {
        /// Which.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// The key cannot be used.
    #[error("{}: the key cannot be used: {error}; RSA (2048 bits or more), ECDSA and Ed25519 keys can", Escaped(path.display()))]
    BadKey {
        /// Which.
        path: PathBuf,
        /// What rustls says.
        error: rustls::Error,
    },
    /// The certificate cannot be used.
    #[error("{}: the certificate cannot be used: {error}", Escaped(path.display()))]
    BadCertificate {
        /// Which.
        path: PathBuf,
        /// What rustls says.
        error: rustls::Error,
    },
    /// The key is another certificate's.
    #[error("{}: the key in {} is not this certificate's", Escaped(cert.display()), Escaped(key.display()))]
    Mismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The first pair cannot be made.
    #[error("{}: cannot be made: {what}; make the directory writable, or name a pair with tls.cert and tls.key", Escaped(path.display()))]
    Generate {
        /// Which.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// TLS cannot be set up at all.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// Everything that is wrong with a pair, each on a line of its own.
#[derive(Debug, thiserror::Error)]
pub struct TlsErrors(pub Vec<TlsError>);

impl fmt::Display for TlsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if number == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl From<TlsError> for TlsErrors {
    fn from(error: TlsError) -> TlsErrors {
        TlsErrors(vec![error])
    }
}

/// What every handshake of the server starts from. Replaced as a whole by a reload; connections that
/// are there keep what they have, tickets of before cost one full handshake.
pub struct Tls {
    /// Without ALPN.
    plain: Arc<ServerConfig>,
    /// The same with ALPN.
    named: Arc<ServerConfig>,
    /// SHA-256 of the server's own certificate: what clients pin.
    pub fingerprint: Sha256,
    /// What the operator should know: an expired or expiring certificate, a key that others can read.
    pub warnings: Vec<String>,
}

impl Tls {
    /// Reads the pair.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(files: &Files) -> Result<Tls, TlsErrors> {
        Tls::load_at(files, UnixTime::now())
    }

    fn load_at(files: &Files, now: UnixTime) -> Result<Tls, TlsErrors> {
        let chain = files.read(&files.cert).and_then(|bytes| {
            let chain = read_pem(&files.cert, &bytes)?.certs;
            if chain.is_empty() { Err(TlsError::NoCertificate { path: files.cert.clone() }) } else { Ok(chain) }
        });
        let key = files.read(&files.key).and_then(|bytes| {
            let encrypted = bytes.windows(9).any(|window| window == b"ENCRYPTED");
            let hint = match encrypted {
                true => "it has a passphrase: take it off with `openssl pkey -in KEY -out KEY.plain`",
                false => "a PEM file begins with -----BEGIN PRIVATE KEY-----",
            };
            read_pem(&files.key, &bytes)?.key.ok_or_else(|| TlsError::NoKey { path: files.key.clone(), hint })
        });
        let (chain, key) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(TlsErrors([chain.err(), key.err()].into_iter().flatten().collect())),
        };
        let fingerprint = chain.first().map_or(Sha256([0; 32]), |leaf| Sha256::of(leaf));
        let mut warnings = Vec::new();
        warnings.extend(chain.first().and_then(|leaf| validity_warning(&files.cert, leaf, now)));
        warnings.extend(exposure_warning(&files.key));

        let provider = Arc::new(aws_lc_rs::default_provider());
        let plain = server_config(&provider, certified(files, chain, key, &provider)?)?;
        let mut named = plain.clone();
        named.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Tls { plain: Arc::new(plain), named: Arc::new(named), fingerprint, warnings })
    }

    /// Goes on with a handshake whose first message has arrived (see [`rustls::server::Acceptor`]).
    ///
    /// rustls answers a client that offers only foreign ALPN names with an alert, as RFC 7301 (3.2) asks
    /// for where a server insists. This one does not: it takes part in ALPN where the client knows the
    /// name, and serves all others as if neither had heard of ALPN.
    ///
    /// # Errors
    /// As [`Accepted::into_connection`]: the alert should be written before the connection is closed.
    pub fn connect(&self, hello: Accepted) -> Result<ServerConnection, (rustls::Error, AcceptedAlert)> {
        let offered = hello.client_hello().alpn().is_some_and(|mut names| names.any(|name| name == ALPN));
        let config = if offered { &self.named } else { &self.plain };
        hello.into_connection(Arc::clone(config))
    }
}

/// SHA-256 of the certificate that the client of a finished handshake proved to hold the key of.
pub fn client_certificate(connection: &ServerConnection) -> Option<Sha256> {
    connection.peer_certificates()?.first().map(|leaf| Sha256::of(leaf))
}

/// The TLS version of a finished handshake, as `/admin sessions` shows it.
pub fn version_name(connection: &ServerConnection) -> &'static str {
    match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
        _ => "none",
    }
}

/// Certificates in their order, and the first private key.
struct Pem {
    certs: Vec<CertificateDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
}

/// The only user of `rustls-pemfile`, which is archived (RUSTSEC-2025-0134): a thin cover over
/// `rustls-pki-types` that can be exchanged here.
fn read_pem(path: &Path, mut bytes: &[u8]) -> Result<Pem, TlsError> {
    let mut pem = Pem { certs: Vec::new(), key: None };
    for item in rustls_pemfile::read_all(&mut bytes) {
        match item.map_err(|error| TlsError::Damaged { path: path.to_owned(), what: error.to_string() })? {
            rustls_pemfile::Item::X509Certificate(cert) => pem.certs.push(cert),
            rustls_pemfile::Item::Pkcs1Key(key) => pem.key = pem.key.or(Some(key.into())),
            rustls_pemfile::Item::Pkcs8Key(key) => pem.key = pem.key.or(Some(key.into())),
            rustls_pemfile::Item::Sec1Key(key) => pem.key = pem.key.or(Some(key.into())),
            _ => {} // such as the EC PARAMETERS that openssl writes in front of a key
        }
    }
    Ok(pem)
}

/// Puts certificate and key together, if they belong together.
fn certified(
    files: &Files,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| TlsError::BadKey { path: files.key.clone(), error })?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(TlsError::Mismatch { cert: files.cert.clone(), key: files.key.clone() })
        }
        Err(error) => Err(TlsError::BadCertificate { path: files.cert.clone(), error }),
    }
}

fn server_config(provider: &Arc<CryptoProvider>, pair: CertifiedKey) -> Result<ServerConfig, TlsError> {
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(pair));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(Arc::new(client::AnyClient(Arc::clone(provider))))
        .with_cert_resolver(resolver);
    // A ticket holds the session sealed, the client's certificate included: nothing is kept here.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
    config.session_storage = ServerSessionMemoryCache::new(SESSION_CACHE);
    config.send_tls13_tickets = TICKETS;
    // All that is offered is sound. With an order of the server's own, nobody between it and a client has a say in
    // which of them it is, and the first is the one with the longest key.
    config.ignore_client_order = true;
    Ok(config)
}

/// From when and until when a certificate is valid.
///
/// webpki checks the validity of an end entity before it looks for an issuer, and says what it read
/// where the time is outside; so the first and the last second that a certificate can name tell both
/// ends, without another parser. `None`: not a certificate that can be read.
fn validity(cert: &CertificateDer<'_>) -> Option<(Duration, Duration)> {
    const LAST: Duration = Duration::from_secs(253_402_300_799); // 9999-12-31T23:59:59Z
    let parsed = ParsedCertificate::try_from(cert).ok()?;
    let judge = |time| {
        let roots = RootCertStore::empty();
        let time = UnixTime::since_unix_epoch(time);
        rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], time, &[]).err()
    };
    let since_epoch = |time: UnixTime| Duration::from_secs(time.as_secs());
    let not_before = match judge(Duration::ZERO)? {
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            since_epoch(not_before)
        }
        _ => Duration::ZERO,
    };
    let not_after = match judge(LAST)? {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => since_epoch(not_after),
        _ => LAST,
    };
    Some((not_before, not_after))
}

fn validity_warning(path: &Path, leaf: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    let (not_before, not_after) = validity(leaf)?;
    let now = Duration::from_secs(now.as_secs());
    let day = |time: Duration| {
        let text = Timestamp::from_millis(time.as_secs().saturating_mul(1000)).to_string();
        text.get(..10).unwrap_or_default().to_owned()
    };
    let path = Escaped(path.display());
    if now > not_after {
        return Some(format!("{path}: the certificate expired on {}; clients will refuse it", day(not_after)));
    }
    if now < not_before {
        return Some(format!("{path}: the certificate is not valid before {}; is the clock right?", day(not_before)));
    }
    let left = not_after.saturating_sub(now);
    let life = not_after.saturating_sub(not_before);
    (left < EXPIRES_SOON && left < life / 4)
        .then(|| format!("{path}: the certificate expires on {}; renew it, then send SIGHUP", day(not_after)))
}

/// Only others are warned about: a group that may read keys is how ACME clients hand them over.
fn exposure_warning(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o007 != 0).then(|| {
        let path = Escaped(path.display());
        format!("{path}: every user of this machine can reach the private key; run: chmod o= {path}")
    })
}
