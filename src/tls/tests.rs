use std::io::{Read as _, Write as _};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup, ProtocolVersion, SignatureScheme,
    SupportedProtocolVersion,
};
use tempfile::TempDir;

use super::*;

/// A client that pins one certificate, as `dsc` does.
#[derive(Debug)]
struct Pinned(Sha256, Arc<CryptoProvider>);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        assert_eq!(Sha256::of(end_entity), self.0);
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.1.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.1.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}

/// A pair in a directory, written to the paths that it returns.
struct Pair {
    dir: TempDir,
    files: Files,
}

fn write_pair(params: CertificateParams) -> Pair {
    let dir = tempfile::tempdir().expect("a directory");
    let key = KeyPair::generate().expect("a key");
    let cert = params.self_signed(&key).expect("a certificate");
    let files = Files { cert: dir.path().join("c.pem"), key: dir.path().join("k.pem"), origin: Origin::Named };
    fs::write(&files.cert, cert.pem()).expect("a file");
    fs::write(&files.key, key.serialize_pem()).expect("a file");
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).expect("a mode");
    Pair { dir, files }
}

fn params() -> CertificateParams {
    CertificateParams::new(vec!["localhost".to_owned()]).expect("names")
}

fn server() -> Tls {
    Tls::load(&write_pair(params()).files).expect("a usable pair")
}

struct Client {
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: Vec<&'static str>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    provider: CryptoProvider,
}

impl Client {
    fn plain() -> Client {
        Client {
            versions: vec![&rustls::version::TLS13, &rustls::version::TLS12],
            alpn: vec![],
            identity: None,
            provider: aws_lc_rs::default_provider(),
        }
    }

    fn with_certificate(params: CertificateParams) -> (Client, Sha256) {
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        let fingerprint = Sha256::of(cert.der());
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        (Client { identity: Some((vec![cert.der().clone()], key)), ..Client::plain() }, fingerprint)
    }

    fn config(&self, server: &Tls) -> Arc<ClientConfig> {
        let provider = Arc::new(self.provider.clone());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(server.fingerprint, provider)));
        let mut config = match &self.identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key()).expect("an identity"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }
}

/// Runs a handshake over memory and sends a line each way. `Err` is what the server made of it.
fn handshake(server: &Tls, config: &Arc<ClientConfig>) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(config), name).expect("a client");
    let mut acceptor = Acceptor::default();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a hello");
    // A byte at a time: the server must not need the whole of it at once.
    let mut accepted = None;
    for byte in hello {
        assert!(accepted.is_none(), "nothing is accepted before the last byte");
        acceptor.read_tls(&mut [byte].as_slice()).expect("a read");
        accepted = acceptor.accept().map_err(|(error, _)| error)?;
    }
    let mut server = server.connect(accepted.expect("the whole hello")).map_err(|(error, _)| error)?;
    client.writer().write_all(b"/ping\n").expect("a write");
    server.writer().write_all(b"* hello\n").expect("a write");
    // Each round carries one flight each way; TLS 1.2 needs the most, with some to spare.
    for _ in 0..8 {
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).expect("a flight");
        }
        let mut flight = flight.as_slice();
        while !flight.is_empty() {
            client.read_tls(&mut flight).expect("a read");
            client.process_new_packets()?;
        }
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).expect("a flight");
        }
        let mut flight = flight.as_slice();
        while !flight.is_empty() {
            server.read_tls(&mut flight).expect("a read");
            server.process_new_packets()?;
        }
    }
    let (mut heard, mut said) = ([0; 8], [0; 6]);
    client.reader().read_exact(&mut heard).expect("the greeting");
    server.reader().read_exact(&mut said).expect("the command");
    assert_eq!((&heard, &said), (b"* hello\n", b"/ping\n"));
    Ok((client, server))
}

#[test]
fn a_client_without_a_certificate_gets_tls_1_3_with_a_post_quantum_key_exchange() {
    let tls = server();
    let (client, server) = handshake(&tls, &Client::plain().config(&tls)).expect("a handshake");
    assert_eq!(version_name(&server), "1.3");
    assert_eq!(client_certificate(&server), None);
    assert_eq!(server.alpn_protocol(), None);
    let group = client.negotiated_key_exchange_group().expect("a group").name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[test]
fn a_client_that_knows_only_tls_1_2_is_served() {
    let tls = server();
    let (plain, (with, fingerprint)) = (Client::plain(), Client::with_certificate(params()));
    for (client, expected) in [(plain, None), (with, Some(fingerprint))] {
        let client = Client { versions: vec![&rustls::version::TLS12], ..client };
        let (_, server) = handshake(&tls, &client.config(&tls)).expect("a handshake");
        assert_eq!(version_name(&server), "1.2");
        assert_eq!(client_certificate(&server), expected);
    }
}

#[test]
fn the_server_chooses_the_cipher_of_all_that_a_client_offers() {
    let tls = server();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut client = Client { versions: vec![version], ..Client::plain() };
        let (first, _) = handshake(&tls, &client.config(&tls)).expect("a handshake");
        client.provider.cipher_suites.reverse();
        let (turned, _) = handshake(&tls, &client.config(&tls)).expect("a handshake");
        let chosen = turned.negotiated_cipher_suite().expect("a cipher").suite();
        assert_eq!(chosen, first.negotiated_cipher_suite().expect("a cipher").suite());
        assert!(format!("{chosen:?}").contains("AES_256_GCM"), "{chosen:?}");
    }
}

#[test]
fn alpn_is_agreed_on_where_the_client_knows_the_name_and_never_demanded() {
    let tls = server();
    for versions in [vec![&rustls::version::TLS13], vec![&rustls::version::TLS12]] {
        for (offered, agreed) in [
            (vec![], None),
            (vec!["http/1.1", "h2"], None),
            (vec!["downstream/1"], Some(&b"downstream/1"[..])),
            (vec!["irc", "downstream/1"], Some(&b"downstream/1"[..])),
        ] {
            let client = Client { alpn: offered, versions: versions.clone(), ..Client::plain() };
            let (client, server) = handshake(&tls, &client.config(&tls)).expect("a handshake");
            assert_eq!((client.alpn_protocol(), server.alpn_protocol()), (agreed, agreed));
        }
    }
}

#[test]
fn any_issuer_will_do_for_a_client_certificate() {
    let tls = server();
    let mut authority = params();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut expired = params();
    expired.not_after = rcgen::date_time_ymd(2001, 1, 1);
    for params in [params(), authority, expired] {
        let (client, fingerprint) = Client::with_certificate(params);
        let (_, server) = handshake(&tls, &client.config(&tls)).expect("a handshake");
        assert_eq!(client_certificate(&server), Some(fingerprint));
    }
}

#[test]
fn a_client_certificate_without_its_key_is_refused() {
    use rustls::client::ResolvesClientCert;

    /// Shows one certificate and signs with the key of another.
    #[derive(Debug)]
    struct Impostor(Arc<CertifiedKey>);
    impl ResolvesClientCert for Impostor {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
        fn has_certs(&self) -> bool {
            true
        }
    }

    let tls = server();
    let provider = aws_lc_rs::default_provider();
    let (mine, theirs) = (Client::with_certificate(params()).0, Client::with_certificate(params()).0);
    let (chain, _) = theirs.identity.expect("an identity");
    let (_, key) = mine.identity.expect("an identity");
    let key = provider.key_provider.load_private_key(key).expect("a key");
    for versions in [vec![&rustls::version::TLS13], vec![&rustls::version::TLS12]] {
        let client = Client { versions, ..Client::plain() };
        let mut config = Arc::unwrap_or_clone(client.config(&tls));
        config.client_auth_cert_resolver =
            Arc::new(Impostor(Arc::new(CertifiedKey::new(chain.clone(), Arc::clone(&key)))));
        let error = handshake(&tls, &Arc::new(config)).expect_err("a refusal");
        assert_eq!(error, rustls::Error::InvalidCertificate(CertificateError::BadSignature));
    }
}

#[test]
fn an_overlong_client_chain_is_refused() {
    let tls = server();
    let (mut client, _) = Client::with_certificate(params());
    let (chain, _) = client.identity.as_mut().expect("an identity");
    let extra = chain.first().expect("a certificate").clone();
    chain.extend(std::iter::repeat_n(extra, 64));
    let error = handshake(&tls, &client.config(&tls)).expect_err("a refusal");
    assert_eq!(error, rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
}

#[test]
fn a_resumed_session_keeps_its_client_certificate() {
    let tls = server();
    for (versions, name) in [(vec![&rustls::version::TLS13], "1.3"), (vec![&rustls::version::TLS12], "1.2")] {
        let (client, fingerprint) = Client::with_certificate(params());
        // With ALPN the first time and the second: both configurations share their tickets.
        let config = Client { versions, alpn: vec!["downstream/1"], ..client }.config(&tls);
        let (_, first) = handshake(&tls, &config).expect("a handshake");
        assert_ne!(first.handshake_kind(), Some(HandshakeKind::Resumed));
        for _ in 0..2 {
            let (_, again) = handshake(&tls, &config).expect("a handshake");
            assert_eq!(again.handshake_kind(), Some(HandshakeKind::Resumed), "TLS {name}");
            assert_eq!(client_certificate(&again), Some(fingerprint), "TLS {name}");
        }
    }
}

#[test]
fn bytes_that_are_no_tls_get_an_alert_at_most() {
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0x16, 0x03, 0x01, 0xff, 0xff], &[0xff; 64]] {
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut &*bytes).expect("a read");
        if let Err((_, mut alert)) = acceptor.accept() {
            let mut written = Vec::new();
            alert.write_all(&mut written).expect("a write");
            assert!(written.len() <= 7, "{written:?}");
        }
    }
}

// ---- files -------------------------------------------------------------------------------------

#[test]
fn the_first_pair_is_made_once_and_never_overwritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let certs = dir.path().join("certs");
    let files = Files { cert: certs.join("cert.pem"), key: certs.join("key.pem"), origin: Origin::Default };
    assert!(files.to_be_generated());
    assert!(files.generate("chat.example").expect("a pair"));
    let (cert, key) = (fs::read(&files.cert).expect("a file"), fs::read(&files.key).expect("a file"));
    assert_eq!(fs::metadata(&files.key).expect("a file").permissions().mode() & 0o777, 0o600);
    assert!(!files.to_be_generated());
    assert!(!files.generate("chat.example").expect("nothing to do"));
    assert_eq!((fs::read(&files.cert).expect("a file"), fs::read(&files.key).expect("a file")), (cert, key));
    let names: Vec<_> =
        fs::read_dir(&certs).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");

    let tls = Tls::load(&files).expect("a usable pair");
    assert_eq!(tls.warnings, [""; 0]);
    handshake(&tls, &Client::plain().config(&tls)).expect("a handshake");

    // Its names are those that a first client uses, and it lasts.
    let leaf = read_pem(&files.cert, &fs::read(&files.cert).expect("a file")).expect("PEM").certs.remove(0);
    let parsed = ParsedCertificate::try_from(&leaf).expect("a certificate");
    for name in ["localhost", "127.0.0.1", "::1", "chat.example"] {
        let name = ServerName::try_from(name).expect("a name");
        rustls::client::verify_server_name(&parsed, &name).expect("a name of the certificate");
    }
    let (not_before, not_after) = validity(&leaf).expect("a validity");
    let days = (not_after - not_before).as_secs() / 86_400;
    assert!((3652..=3655).contains(&days), "{days}");
}

#[test]
fn a_pair_that_appears_meanwhile_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    fs::write(&key, "mine").expect("a file");
    let error = generate::self_signed(&cert, &key, "x").expect_err("a refusal").to_string();
    assert!(error.contains("key.pem: cannot be made: File exists"), "{error}");
    assert_eq!(fs::read(&key).expect("a file"), b"mine");
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1);
}

#[test]
fn a_missing_file_is_an_error_unless_it_is_the_whole_default_pair() {
    let Pair { dir, files } = write_pair(params());
    let at = |name: &str| dir.path().join(name);
    let text = |files: &Files| Tls::load(files).err().expect("an error").to_string();

    let both = Files { cert: at("none.pem"), key: at("nokey.pem"), origin: Origin::Named };
    assert!(!both.to_be_generated());
    let hint = "no such file; the configuration names it: put it there, or take tls.cert and tls.key out to have a self-signed pair made";
    assert_eq!(text(&both), format!("{}: {hint}\n{}: {hint}", both.cert.display(), both.key.display()));

    let half = Files { key: at("nokey.pem"), origin: Origin::Default, ..files.clone() };
    assert!(!half.to_be_generated());
    assert!(!half.generate("x").expect("nothing to do"));
    assert_eq!(
        text(&half),
        format!(
            "{}: no such file; the other file of the pair is there: put this one back, or move both away to have a new pair made",
            half.key.display()
        )
    );

    let credential = Files { key: at("tls-key"), origin: Origin::Credentials, ..files };
    assert_eq!(
        text(&credential),
        format!(
            "{}: no such file; systemd handed over only the other one: LoadCredential= must name both tls-cert and tls-key",
            credential.key.display()
        )
    );
}

#[test]
fn what_is_in_the_files_is_checked_and_both_are_reported() {
    let Pair { dir, files } = write_pair(params());
    let other = write_pair(params());
    let text = |files: &Files| Tls::load(files).err().map_or_else(String::new, |error| error.to_string());
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let with = |cert: &Path, key: &Path| Files { cert: cert.to_owned(), key: key.to_owned(), origin: Origin::Named };

    let mixed = with(&files.cert, &other.files.key);
    assert_eq!(
        text(&mixed),
        format!("{}: the key in {} is not this certificate's", mixed.cert.display(), mixed.key.display())
    );

    let swapped = with(&files.key, &files.cert);
    assert_eq!(
        text(&swapped),
        format!(
            "{}: no certificate in it; a PEM file begins with -----BEGIN CERTIFICATE-----\n\
             {}: no private key in it; a PEM file begins with -----BEGIN PRIVATE KEY-----",
            files.key.display(),
            files.cert.display()
        )
    );

    let locked =
        put("locked.pem", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    assert_eq!(
        text(&with(&files.cert, &locked)),
        format!(
            "{}: no private key in it; it has a passphrase: take it off with `openssl pkey -in KEY -out KEY.plain`",
            locked.display()
        )
    );

    let cut = put("cut.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n");
    assert!(text(&with(&cut, &files.key)).starts_with(&format!("{}: damaged PEM: ", cut.display())));
    let junk = put("junk.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(text(&with(&junk, &files.key)).contains("junk.pem: the certificate cannot be used: "));
    let key = put("key.pem", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert!(text(&with(&files.cert, &key)).contains("key.pem: the key cannot be used: "));
    let large = put("large.pem", &vec![b'\n'; 1_048_577]);
    assert_eq!(
        text(&with(&large, &files.key)),
        format!("{}: is larger than 1048576 bytes; is it the right file?", large.display())
    );
    assert!(text(&with(dir.path(), &files.key)).contains(": cannot be read: "));

    // Both in one file, as some tools write them.
    let mut one = fs::read(&files.key).expect("a file");
    one.extend(fs::read(&files.cert).expect("a file"));
    let one = put("one.pem", &one);
    assert_eq!(text(&with(&one, &one)), "");
}

#[test]
fn validity_and_exposure_are_warned_about() {
    let warnings = |params: CertificateParams, mode: u32, now: u64| {
        let pair = write_pair(params);
        fs::set_permissions(&pair.files.key, fs::Permissions::from_mode(mode)).expect("a mode");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let tls = Tls::load_at(&pair.files, now).expect("a usable pair");
        tls.warnings.join("\n").replace(&format!("{}/", pair.dir.path().display()), "")
    };
    let until = |ca: bool| {
        let mut params = params();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2030, 1, 1), rcgen::date_time_ymd(2030, 4, 1));
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    };
    let day = |day: u64| 1_893_456_000 + day * 86_400; // 2030-01-01 and so many days
    for ca in [false, true] {
        assert_eq!(warnings(until(ca), 0o600, day(1)), "");
        assert_eq!(warnings(until(ca), 0o640, day(67)), "");
        assert_eq!(
            warnings(until(ca), 0o600, day(68)),
            "c.pem: the certificate expires on 2030-04-01; renew it, then send SIGHUP"
        );
        assert_eq!(
            warnings(until(ca), 0o600, day(91)),
            "c.pem: the certificate expired on 2030-04-01; clients will refuse it"
        );
        assert_eq!(
            warnings(until(ca), 0o600, day(0) - 1),
            "c.pem: the certificate is not valid before 2030-01-01; is the clock right?"
        );
    }
    assert_eq!(
        warnings(until(false), 0o644, day(1)),
        "k.pem: every user of this machine can reach the private key; run: chmod o= k.pem"
    );
}

#[test]
fn named_files_come_before_credentials_and_those_before_the_default_pair() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key) = (Path::new("certs/cert.pem"), Path::new("certs/key.pem"));
    let choose = |named| Files::choose(cert, key, named, Some(dir.path()));
    assert_eq!(choose(false).origin, Origin::Default);
    fs::write(dir.path().join("tls-key"), "").expect("a file");
    let handed = choose(false);
    assert_eq!((handed.origin, handed.cert), (Origin::Credentials, dir.path().join("tls-cert")));
    assert_eq!(choose(true), Files { cert: cert.to_owned(), key: key.to_owned(), origin: Origin::Named });
    assert_eq!(Files::choose(cert, key, false, None).origin, Origin::Default);
}

#[test]
fn versions_are_named_as_people_write_them() {
    let tls = server();
    let (_, server) = handshake(&tls, &Client::plain().config(&tls)).expect("a handshake");
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}
