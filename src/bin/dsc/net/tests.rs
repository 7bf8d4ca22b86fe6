//! A server of the tests' own, in a thread, that says what a test wants said; and the tests with it.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use tempfile::TempDir;

use super::trust::{Fingerprint, TrustError};
use super::*;

mod talk;
mod trust;

/// How long something may take that happens at once. Only a test that fails ever waits so long.
const PATIENCE: Duration = Duration::from_secs(30);
const HELLO: &str = "* hello downstream/1 server=test version=0 max-line=131072 max-body=98304 registration=open :hi\n";

/// A certificate with its key, and what it is signed by.
#[derive(Clone)]
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

impl Identity {
    /// Signed by itself, as the daemon's first one.
    fn own() -> Identity {
        Identity::own_with(params(&["localhost", "127.0.0.1"]))
    }

    fn own_with(params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Identity { chain: vec![certificate.der().clone()], key: key.serialize_der() }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.chain[0])
    }
}

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        Authority::with(name, params(&[]))
    }

    fn with(name: &str, mut params: CertificateParams) -> Authority {
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { chain: vec![certificate.der().clone()], key: key.serialize_der() }
    }
}

/// The server's end of a connection.
struct Peer {
    stream: BufReader<StreamOwned<ServerConnection, TcpStream>>,
}

impl Peer {
    /// Says something, where that may fail because the client has gone.
    fn try_say(&mut self, text: &[u8]) -> std::io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(text)?;
        stream.flush()
    }

    fn say(&mut self, text: &str) {
        self.try_say(text.as_bytes()).unwrap();
    }

    /// The next line of the client, without its ending; empty at the end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        // A client that leaves without a close_notify is one that was dropped.
        let _ = self.stream.read_line(&mut line);
        line.trim_end_matches('\n').to_owned()
    }

    /// The next command: its label, and the line without it.
    fn command(&mut self) -> (String, String) {
        let line = self.line();
        let (head, rest) = line.split_once(' ').map_or((line.as_str(), ""), |(head, rest)| (head, rest));
        let (verb, label) = head.split_once('@').unwrap_or_else(|| panic!("no label in {line:?}"));
        (label.to_owned(), format!("{verb} {rest}").trim_end().to_owned())
    }

    /// Ends this side as TLS wants it, and goes on reading. The client may have gone before.
    fn half_close(&mut self) {
        let stream = self.stream.get_mut();
        stream.conn.send_close_notify();
        let _ = stream.flush();
        let _ = stream.sock.shutdown(std::net::Shutdown::Write);
    }

    fn cut(&mut self) {
        let _ = self.stream.get_mut().sock.shutdown(std::net::Shutdown::Both);
    }

    /// Waits for the client to leave.
    fn wait_for_end(&mut self) {
        let _ = self.stream.read_to_end(&mut Vec::new());
    }
}

struct Fake {
    endpoint: Endpoint,
    thread: JoinHandle<()>,
}

impl Fake {
    /// Serves one connection after the other with `script`, `count` of them.
    fn serve(identity: &Identity, count: usize, script: impl FnMut(&mut Peer) + Send + 'static) -> Fake {
        Fake::serve_versions(identity, rustls::ALL_VERSIONS, count, script)
    }

    fn serve_versions(
        identity: &Identity,
        versions: &[&'static SupportedProtocolVersion],
        count: usize,
        mut script: impl FnMut(&mut Peer) + Send + 'static,
    ) -> Fake {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.clone()));
        let key = provider.key_provider.load_private_key(key).unwrap();
        // This resolver does not ask whether the key is the certificate's.
        let pair = SingleCertAndKey::from(CertifiedKey::new(identity.chain.clone(), key));
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(pair));
        let config = Arc::new(config);
        Fake::raw(count, move |socket| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            script(&mut Peer { stream: BufReader::new(StreamOwned::new(connection, socket)) });
        })
    }

    /// Serves without TLS.
    fn raw(count: usize, mut script: impl FnMut(TcpStream) + Send + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let thread = std::thread::spawn(move || {
            for _ in 0..count {
                let (socket, _) = listener.accept().unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.set_write_timeout(Some(PATIENCE)).unwrap();
                script(socket);
            }
        });
        Fake { endpoint, thread }
    }

    /// The thread has ended, and without a panic.
    fn finish(self) {
        self.thread.join().unwrap();
    }
}

/// A directory, and what it trusts.
struct Home {
    directory: TempDir,
}

impl Home {
    fn new() -> Home {
        Home { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn trust(&self) -> Trust {
        Trust { known: self.path("home/known_servers"), ca: None, pin: None }
    }

    fn with_ca(&self, pem: &str) -> Trust {
        std::fs::write(self.path("ca.pem"), pem).unwrap();
        Trust { ca: Some(self.path("ca.pem")), ..self.trust() }
    }

    fn with_pin(&self, pin: Fingerprint) -> Trust {
        Trust { pin: Some(pin), ..self.trust() }
    }

    /// The lines of the file that say something.
    fn known(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("home/known_servers")).unwrap_or_default();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }
}

/// A connection to a server of a fresh home that follows `script`.
fn connected(script: impl FnMut(&mut Peer) + Send + 'static) -> (Connection, Fake) {
    let mut script = script;
    let fake = Fake::serve(&Identity::own(), 1, move |peer| {
        peer.say(HELLO);
        script(peer);
    });
    let opened = Connection::open(&fake.endpoint, &Home::new().trust(), PATIENCE).unwrap();
    (opened.connection, fake)
}
