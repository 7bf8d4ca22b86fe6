//! Which certificate is believed to be the server's.
//!
//! In this order, and the first rule that has something to say decides:
//!
//! 1. `--pin`: exactly that certificate, which is then remembered.
//! 2. A certificate that is remembered: exactly that one. That a certificate authority would vouch for
//!    another changes nothing: many can, and not all are honest.
//! 3. A server that authorities vouched for before: they must do so again. It never falls back to trust on
//!    first use, which would let anybody in between step in with a certificate of their own.
//! 4. An unknown server with `--ca FILE`: the file must vouch for it.
//! 5. An unknown server: if this machine's roots vouch for it, that is remembered. If not, it is trusted on
//!    first use: its certificate is remembered, and its fingerprint shown.
//!
//! In every case the server proves in the handshake that it holds the certificate's key, and what is to be
//! remembered is written only after it has greeted as a DownStream server.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use downstream::protocol::{Escaped, escaped};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::Digest as _;

use super::endpoint::Endpoint;
use super::known::{self, Enter, Known, KnownError, Remembered};
use crate::error::{Exit, Failure};

/// Largest file of `--ca`, in bytes: all roots of a browser have some hundreds of KiB.
const CA_MAX: u64 = 1_048_576;

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
        Fingerprint(sha2::Sha256::digest(certificate).into())
    }

    /// Reads 64 hexadecimal digits of either case, as the daemon prints them at its start; with `sha256:`
    /// in front, as [`fmt::Display`] writes it; with colons between the bytes, as
    /// `openssl x509 -fingerprint -sha256` does.
    pub(crate) fn parse(text: &str) -> Option<Fingerprint> {
        let digits = match text.get(..7) {
            Some(start) if start.eq_ignore_ascii_case("sha256:") => text.get(7..)?,
            _ => text,
        };
        let digits = match digits.len() {
            64 => digits.to_owned(),
            95 if digits.bytes().skip(2).step_by(3).all(|b| b == b':') => digits.replace(':', ""),
            _ => return None,
        };
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Fingerprint(bytes))
    }
}

/// `sha256:` and 64 lower-case hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the person at the terminal says about trust, and where it is remembered.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    /// The file `known_servers` of the home.
    pub(crate) known: PathBuf,
    /// `--ca FILE`: the authorities to believe in, in place of this machine's.
    pub(crate) ca: Option<PathBuf>,
    /// `--pin`: the certificate to demand.
    pub(crate) pin: Option<Fingerprint>,
}

/// A server that was trusted on first use: to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FirstUse {
    /// The server.
    pub(crate) endpoint: Endpoint,
    /// Its certificate, which is pinned from now on.
    pub(crate) fingerprint: Fingerprint,
    /// Why no certificate authority vouches for it.
    pub(crate) reason: String,
}

impl fmt::Display for FirstUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FirstUse { endpoint, fingerprint, reason } = self;
        write!(
            f,
            "first contact with {endpoint}: its certificate is {fingerprint}, trusted from now on; compare it with \
             what the server printed when it started, because nobody vouches for it ({reason})"
        )
    }
}

/// The certificate is not believed, or it cannot be judged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// Not the one that was pinned.
    #[error("the certificate of {endpoint} has changed: pinned is {}, it shows {shown}", list(pinned))]
    Changed {
        /// The server.
        endpoint: String,
        /// What the file says.
        pinned: Vec<Fingerprint>,
        /// What the server shows.
        shown: Fingerprint,
        /// Whether authorities vouch for what it shows.
        vouched: bool,
        /// The file.
        known: PathBuf,
    },
    /// Authorities vouched for it once, and do not now.
    #[error("the certificate of {endpoint} is not vouched for any more: it shows {shown}, and {reason}")]
    NoLongerVouched {
        /// The server.
        endpoint: String,
        /// What the server shows.
        shown: Fingerprint,
        /// What is wrong with it.
        reason: String,
        /// The file.
        known: PathBuf,
    },
    /// Not the one that was demanded.
    #[error("the certificate of {endpoint} is not the demanded one: --pin has {demanded}, it shows {shown}")]
    NotPin {
        /// The server.
        endpoint: String,
        /// By `--pin`.
        demanded: Fingerprint,
        /// What the server shows.
        shown: Fingerprint,
    },
    /// The file of `--ca` does not vouch for it.
    #[error("{} does not vouch for {endpoint}: it shows {shown}, and {reason}", Escaped(ca.display()))]
    NotByCa {
        /// The server.
        endpoint: String,
        /// The file.
        ca: PathBuf,
        /// What the server shows.
        shown: Fingerprint,
        /// What is wrong with it.
        reason: String,
    },
    /// The file of `--ca` cannot be used.
    #[error("{}: {reason}", Escaped(path.display()))]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file of known servers cannot be used.
    #[error(transparent)]
    Known(#[from] KnownError),
}

fn list(fingerprints: &[Fingerprint]) -> String {
    let texts: Vec<String> = fingerprints.iter().map(Fingerprint::to_string).collect();
    texts.join(" or ")
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Failure {
        let stop = |hint: String| Failure::new(Exit::IdentityChanged, error.to_string()).hint(hint);
        let ask = "somebody may be in between. Ask whoever runs the server for its fingerprint, which the daemon \
                   prints when it starts (\"certificate SHA-256 …\")";
        match &error {
            TrustError::Changed { endpoint, shown, vouched, known, .. } => {
                let vouched = if *vouched { "; certificate authorities do vouch for the new one" } else { "" };
                let known = Escaped(known.display());
                stop(format!(
                    "{ask}{vouched}. If the new one is right: --pin {shown}, or remove the line of {endpoint} from {known}"
                ))
            }
            TrustError::NoLongerVouched { endpoint, shown, known, .. } => stop(format!(
                "{ask}. If it is right: --pin {shown}, or --ca FILE with the authority of this server, or remove the \
                 line of {endpoint} from {}",
                Escaped(known.display())
            )),
            TrustError::NotPin { .. } => stop(format!("{ask}, and compare it with --pin")),
            TrustError::NotByCa { shown, .. } => stop(format!("{ask}. If it is right: --pin {shown}")),
            TrustError::Ca { .. } => {
                Failure::failed(error.to_string()).hint("--ca takes a PEM file with the certificates of authorities")
            }
            TrustError::Known(_) => Failure::failed(error.to_string()),
        }
    }
}

/// What the certificate was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ruling {
    /// What was remembered.
    Remembered,
    /// What `--pin` demands.
    Demanded,
    /// Vouched for, for the first time.
    Vouched,
    /// Nobody vouches for it, and the server was never met.
    FirstUse(String),
}

/// Judges the certificate in the handshake, and keeps what it found.
#[derive(Debug)]
pub(super) struct Judge {
    provider: Arc<CryptoProvider>,
    endpoint: Endpoint,
    trust: Trust,
    known: Vec<Known>,
    ca: Option<Vec<CertificateDer<'static>>>,
    found: Mutex<Option<Found>>,
}

/// The certificate that was shown, and what it was found to be.
type Found = (Fingerprint, Result<Ruling, TrustError>);

impl Judge {
    /// Reads what is known before anything is sent.
    pub(super) fn new(endpoint: &Endpoint, trust: &Trust, provider: Arc<CryptoProvider>) -> Result<Judge, TrustError> {
        let known = known::look_up(&trust.known, endpoint)?;
        let ca = trust.ca.as_deref().map(read_ca).transpose()?;
        Ok(Judge { provider, endpoint: endpoint.clone(), trust: trust.clone(), known, ca, found: Mutex::new(None) })
    }

    fn found(&self) -> MutexGuard<'_, Option<Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the handshake was ended, if it was for the certificate. Answers once.
    pub(super) fn refusal(&self) -> Option<TrustError> {
        self.found().take_if(|(_, ruling)| ruling.is_err())?.1.err()
    }

    /// Remembers what is to be remembered, after a handshake that succeeded and a greeting that is
    /// DownStream's. Answers what is to be shown.
    ///
    /// # Errors
    /// The file cannot be written, or another process has met another server under this name meanwhile.
    pub(super) fn remember(&self) -> Result<Option<FirstUse>, TrustError> {
        let Some((shown, Ok(ruling))) = self.found().take() else {
            debug_assert!(false, "a handshake that succeeded was judged");
            return Ok(None);
        };
        let (known, enter) = match ruling {
            Ruling::Remembered => return Ok(None),
            Ruling::Demanded => (Known::Certificate(shown), Enter::Replace),
            Ruling::Vouched => (Known::Roots, Enter::First),
            Ruling::FirstUse(_) => (Known::Certificate(shown), Enter::First),
        };
        if let Remembered::Otherwise(others) = known::remember(&self.trust.known, &self.endpoint, known, enter)? {
            return Err(self.changed(&others, shown, known == Known::Roots));
        }
        Ok(match ruling {
            Ruling::FirstUse(reason) => Some(FirstUse { endpoint: self.endpoint.clone(), fingerprint: shown, reason }),
            _ => None,
        })
    }

    /// The refusal of a certificate that is not what is `known` of the server.
    fn changed(&self, known: &[Known], shown: Fingerprint, vouched: bool) -> TrustError {
        let pinned: Vec<Fingerprint> = known
            .iter()
            .filter_map(|known| match known {
                Known::Certificate(fingerprint) => Some(*fingerprint),
                Known::Roots => None,
            })
            .collect();
        let (endpoint, known) = (self.endpoint.to_string(), self.trust.known.clone());
        match pinned.is_empty() {
            true => {
                let reason = "no certificate authority vouches for it".to_owned();
                TrustError::NoLongerVouched { endpoint, shown, reason, known }
            }
            false => TrustError::Changed { endpoint, pinned, shown, vouched, known },
        }
    }

    fn rule(&self, shown: Fingerprint, vouch: impl Fn() -> Result<(), String>) -> Result<Ruling, TrustError> {
        if let Some(demanded) = self.trust.pin {
            return match demanded == shown {
                true => Ok(Ruling::Demanded),
                false => Err(TrustError::NotPin { endpoint: self.endpoint.to_string(), demanded, shown }),
            };
        }
        if self.known.contains(&Known::Certificate(shown)) {
            return Ok(Ruling::Remembered);
        }
        let vouched = vouch();
        if self.known.contains(&Known::Roots) {
            return vouched.map(|()| Ruling::Remembered).map_err(|reason| TrustError::NoLongerVouched {
                endpoint: self.endpoint.to_string(),
                shown,
                reason,
                known: self.trust.known.clone(),
            });
        }
        if !self.known.is_empty() {
            return Err(self.changed(&self.known, shown, vouched.is_ok()));
        }
        match (vouched, &self.trust.ca) {
            (Ok(()), _) => Ok(Ruling::Vouched),
            (Err(reason), Some(ca)) => {
                Err(TrustError::NotByCa { endpoint: self.endpoint.to_string(), ca: ca.clone(), shown, reason })
            }
            (Err(reason), None) => Ok(Ruling::FirstUse(reason)),
        }
    }

    /// Whether authorities vouch for a certificate, and if not, why.
    fn vouch(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(certificates) => {
                // A person who names the server's own certificate means exactly that one.
                if certificates.iter().any(|certificate| certificate == leaf) {
                    return Ok(());
                }
                let (expired, current): (Vec<_>, Vec<_>) =
                    certificates.iter().cloned().partition(|certificate| has_expired(certificate, now));
                if current.is_empty() && !expired.is_empty() {
                    return Err("every certificate in that file has expired".to_owned());
                }
                roots.add_parsable_certificates(current);
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        // The builder's only complaint here is that there are no roots.
        let verifier = verifier.build().map_err(|_| "there is no certificate authority to ask".to_owned())?;
        verifier.verify_server_cert(leaf, between, name, ocsp, now).map(drop).map_err(|error| explain(&error))
    }
}

/// Whether a certificate's time is over. webpki does not ask this of roots; judged as an end entity, which
/// it is not, a certificate's time is the first thing looked at.
fn has_expired(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return false };
    let judged =
        rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], now, &[]);
    matches!(
        judged,
        Err(rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }))
    )
}

/// What is wrong with a certificate, as the end of a sentence.
fn explain(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(error) = error else { return escaped(&error.to_string()) };
    match error {
        CertificateError::UnknownIssuer => "no certificate authority that is trusted here has signed it".into(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; is the clock right?".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".into()
        }
        CertificateError::BadSignature => "its signature is not that of the authority that it names".into(),
        CertificateError::Revoked => "it was revoked".into(),
        other => escaped(&format!("it cannot be verified: {other}")),
    }
}

fn read_ca(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let amiss = |reason: String| TrustError::Ca { path: path.to_owned(), reason };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| amiss(format!("cannot be read: {error}")))?;
    file.take(CA_MAX + 1).read_to_end(&mut bytes).map_err(|error| amiss(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > CA_MAX {
        return Err(amiss(format!("is larger than {CA_MAX} bytes; is it the right file?")));
    }
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| amiss(escaped(&format!("damaged PEM: {error}"))))?;
    if certificates.is_empty() {
        return Err(amiss("has no certificate in it".to_owned()));
    }
    for certificate in &certificates {
        RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|_| amiss("has something in it that is no certificate".to_owned()))?;
    }
    Ok(certificates)
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of(end_entity);
        let ruling = self.rule(shown, || self.vouch(end_entity, intermediates, server_name, ocsp_response, now));
        let believed = ruling.is_ok();
        // One connection has one handshake, and one certificate in it.
        *self.found() = Some((shown, ruling));
        match believed {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
