//! The first certificate: a self-signed pair for a server that has none yet.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::ToSpan as _;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use zeroize::Zeroizing;

use super::TlsError;

/// How long the pair is good for. Clients that pin it should not have to learn a new one soon; a
/// server that is there in ten years has had its certificate replaced.
const YEARS: i32 = 10;

/// Makes a self-signed ECDSA P-256 pair for localhost and `name`, and puts it at the two paths, the key
/// readable by its owner only. Never overwrites: a file that is there already is an error.
pub(super) fn self_signed(cert_path: &Path, key_path: &Path, name: &str) -> Result<(), TlsError> {
    let made = |error: rcgen::Error| TlsError::Generate { path: cert_path.to_owned(), what: error.to_string() };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(made)?;
    let cert = params(name).and_then(|params| params.self_signed(&key)).map_err(made)?;
    let key_pem = Zeroizing::new(key.serialize_pem());
    // The key first: a certificate that is there has its key.
    put(key_path, key_pem.as_bytes(), 0o600)?;
    put(cert_path, cert.pem().as_bytes(), 0o644)
}

fn params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        names.push(name.to_owned());
    }
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let date = |day: jiff::civil::Date| {
        rcgen::date_time_ymd(day.year().into(), day.month().unsigned_abs(), day.day().unsigned_abs())
    };
    // From yesterday: the clocks of clients differ.
    params.not_before = date(today.saturating_sub(1.day()));
    params.not_after = date(today.saturating_add(YEARS.years()));
    Ok(params)
}

/// Writes a file whole or not at all: under another name first, on stable storage, then linked to its
/// own, which fails where something is there.
fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    write_new(path, bytes, mode).map_err(|error| TlsError::Generate { path: path.to_owned(), what: error.to_string() })
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(temporary);
    // Left there by a process of the same number that was killed.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::hard_link(&temporary, path)
    })();
    fs::remove_file(&temporary)?;
    written?;
    File::open(dir)?.sync_all()
}
