//! A blocking client: rustls over a TCP socket.
//!
//! A thread of its own reads the socket, so that a client that writes a lot never blocks the daemon by
//! not reading, and a test can stop reading on purpose ([`Client::pause`]).

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use sha2::Digest;

use super::pattern::{Captures, Pattern};
use super::{DEADLINE, Ended, Link};

/// How many of the last lines a failing test shows.
const TRANSCRIPT: usize = 60;

/// A client certificate of its own.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Identity {
    /// A new one.
    pub(crate) fn generate() -> Identity {
        let made = rcgen::generate_simple_self_signed(vec!["client.test".to_owned()]).unwrap();
        Identity { certificate: made.cert.der().to_vec(), key: made.signing_key.serialize_der() }
    }

    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        sha2::Sha256::digest(&self.certificate).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// How to connect.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Only TLS 1.2.
    pub(crate) tls12: bool,
    /// Offers the protocol's ALPN identifier.
    pub(crate) alpn: Option<Vec<u8>>,
    /// Shown to the server.
    pub(crate) identity: Option<Identity>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    tls: ClientConnection,
    socket: TcpStream,
    incoming: Receiver<Arrived>,
    gate: Arc<Gate>,
    plain: Vec<u8>,
    taken: usize,
    ended: Option<Ended>,
    transcript: std::collections::VecDeque<String>,
}

#[derive(Debug)]
enum Arrived {
    Bytes(Vec<u8>),
    End(Option<String>),
}

/// Holds the reading thread.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: Mutex<bool>,
    moved: Condvar,
}

impl Gate {
    /// Closes or opens it.
    pub(crate) fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.moved.notify_all();
    }

    fn wait(&self) {
        let mut closed = self.closed.lock().unwrap();
        while *closed {
            closed = self.moved.wait(closed).unwrap();
        }
    }
}

impl Client {
    /// Connects and takes the greeting.
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let mut client = Client::raw(address, &Options::default());
        client.expect("* hello downstream/1 ... :<TEXT>");
        client
    }

    /// Connects; the greeting comes as the first line.
    pub(crate) fn raw(address: SocketAddr, options: &Options) -> Client {
        Client::try_raw(address, options).unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"))
    }

    /// Connects, where that may fail: the daemon may be killed meanwhile.
    pub(crate) fn try_raw(address: SocketAddr, options: &Options) -> Result<Client, String> {
        Client::with_config(address, Arc::new(config(options)))
    }

    /// Connects with a configuration of rustls, which keeps the tickets of earlier sessions.
    pub(crate) fn with_config(address: SocketAddr, config: Arc<ClientConfig>) -> Result<Client, String> {
        let socket = TcpStream::connect(address).map_err(|e| e.to_string())?;
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        socket.set_write_timeout(Some(DEADLINE)).map_err(|e| e.to_string())?;
        let name = ServerName::try_from("downstream.test").map_err(|e| e.to_string())?;
        let mut tls = ClientConnection::new(config, name).map_err(|e| e.to_string())?;
        tls.set_buffer_limit(None);
        let (tell, incoming) = channel();
        let gate = Arc::new(Gate::default());
        let reading = socket.try_clone().map_err(|e| e.to_string())?;
        std::thread::spawn({
            let gate = Arc::clone(&gate);
            move || read_all(reading, &tell, &gate)
        });
        let (plain, transcript) = (Vec::new(), std::collections::VecDeque::new());
        let mut client = Client { tls, socket, incoming, gate, plain, taken: 0, ended: None, transcript };
        client.flush();
        while client.tls.is_handshaking() {
            if let Some(ended) = &client.ended {
                return Err(format!("{ended:?} during the handshake"));
            }
            client.pump();
        }
        Ok(client)
    }

    /// What the handshake agreed on.
    pub(crate) fn tls(&self) -> &ClientConnection {
        &self.tls
    }

    /// Sends a line.
    pub(crate) fn say(&mut self, line: &str) {
        self.note(">", line);
        self.send(format!("{line}\n").as_bytes());
    }

    /// Sends a line and expects one that fits `pattern`.
    pub(crate) fn ask(&mut self, line: &str, pattern: &str) -> Captures {
        self.say(line);
        self.expect(pattern)
    }

    /// Expects the next line to fit `pattern`; what it captured.
    pub(crate) fn expect(&mut self, pattern: &str) -> Captures {
        let mut captures = Captures::new();
        let parsed = Pattern::parse(pattern).unwrap();
        match self.line() {
            Ok(line) if parsed.matches(&line, &mut captures) => captures,
            Ok(line) => panic!("expected: {pattern}\ngot:      {line}\n{}", self.transcript()),
            Err(ended) => panic!("expected: {pattern}\ngot:      {ended:?}\n{}", self.transcript()),
        }
    }

    /// Reads lines until one fits `pattern`; the ones before it and itself.
    pub(crate) fn until(&mut self, pattern: &str) -> Vec<String> {
        let parsed = Pattern::parse(pattern).unwrap();
        let mut lines = Vec::new();
        loop {
            match self.line() {
                Ok(line) => {
                    let fits = parsed.matches(&line, &mut Captures::new());
                    lines.push(line);
                    if fits {
                        return lines;
                    }
                }
                Err(ended) => panic!("expected sometime: {pattern}\ngot: {ended:?}\n{}", self.transcript()),
            }
        }
    }

    /// Expects the server to end the connection, cleanly, with nothing more to say.
    pub(crate) fn expect_closed(&mut self) {
        match self.line() {
            Err(Ended::Cleanly) => {}
            Err(ended) => panic!("expected a clean close, got {ended:?}\n{}", self.transcript()),
            Ok(line) => panic!("expected a clean close, got {line:?}\n{}", self.transcript()),
        }
    }

    /// Reads to the end of the connection; every line, and how it ended.
    pub(crate) fn drain(&mut self) -> (Vec<String>, Ended) {
        let mut lines = Vec::new();
        loop {
            match self.line() {
                Ok(line) => lines.push(line),
                Err(ended) => return (lines, ended),
            }
        }
    }

    /// Sends bytes where that may fail because the daemon is gone.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        // Pieces, so that what rustls holds stays small.
        for piece in bytes.chunks(1 << 16) {
            self.tls.writer().write_all(piece)?;
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.socket)?;
            }
        }
        Ok(())
    }

    /// Stops reading the socket (what is being read at this moment still arrives).
    pub(crate) fn pause(&self) {
        self.gate.set(true);
    }

    /// Reads on.
    pub(crate) fn resume(&self) {
        self.gate.set(false);
    }

    /// The gate itself, for when the client is busy in another thread.
    pub(crate) fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// Ends the sending direction of the TCP connection without a close_notify, as `ncat` does.
    pub(crate) fn fin(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// The last lines of both directions.
    pub(crate) fn transcript(&self) -> String {
        let lines: String = self.transcript.iter().map(|line| format!("  {line}\n")).collect();
        format!("--- the last lines of this connection:\n{lines}")
    }

    fn note(&mut self, mark: &str, line: &str) {
        if self.transcript.len() == TRANSCRIPT {
            self.transcript.pop_front();
        }
        let short: String = line.chars().take(200).collect();
        self.transcript.push_back(format!("{mark} {short}"));
    }

    fn flush(&mut self) {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut self.socket).is_err() {
                return; // The reading side tells how it ended.
            }
        }
    }

    /// Takes in what arrived next; sets `ended` where nothing more will.
    fn pump(&mut self) {
        match self.incoming.recv_timeout(DEADLINE) {
            Ok(Arrived::Bytes(bytes)) => {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() && self.ended.is_none() {
                    if let Err(e) = self.tls.read_tls(&mut rest) {
                        self.ended = Some(Ended::Abruptly(e.to_string()));
                        break;
                    }
                    match self.tls.process_new_packets() {
                        Ok(state) => {
                            let mut fresh = vec![0; state.plaintext_bytes_to_read()];
                            if self.tls.reader().read_exact(&mut fresh).is_ok() {
                                self.plain.append(&mut fresh);
                            }
                            if state.peer_has_closed() {
                                self.ended = Some(Ended::Cleanly);
                            }
                        }
                        Err(e) => self.ended = Some(Ended::Abruptly(e.to_string())),
                    }
                }
                self.flush();
            }
            Ok(Arrived::End(why)) => {
                self.ended = Some(Ended::Abruptly(why.unwrap_or_else(|| "end of stream without close_notify".into())));
            }
            Err(_) => self.ended = Some(Ended::Silent),
        }
    }
}

impl Link for Client {
    fn send(&mut self, bytes: &[u8]) {
        if let Err(e) = self.try_send(bytes) {
            // A test that goes on writing to a closed connection sees the end when it reads.
            self.note("!", &format!("sending failed: {e}"));
        }
    }

    fn line(&mut self) -> Result<String, Ended> {
        let mut searched = self.taken;
        loop {
            let fresh = self.plain.get(searched..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|&b| b == b'\n') {
                let line = self.plain.get(self.taken..searched + at).unwrap_or_default();
                let line = String::from_utf8(line.to_vec()).unwrap_or_else(|e| panic!("a line that is not UTF-8: {e}"));
                self.taken = searched + at + 1;
                if self.taken > 1 << 20 {
                    self.plain.drain(..self.taken);
                    self.taken = 0;
                }
                self.note("<", &line);
                return Ok(line);
            }
            searched = self.plain.len();
            if let Some(ended) = &self.ended {
                // A connection that is cut may end anywhere; one that is closed properly ends with a line.
                let whole = self.taken == self.plain.len() || *ended != Ended::Cleanly;
                assert!(whole, "the stream ended cleanly, but inside a line\n{}", self.transcript());
                return Err(ended.clone());
            }
            self.pump();
            if self.ended == Some(Ended::Silent) {
                self.ended = None;
                return Err(Ended::Silent);
            }
        }
    }

    fn half_close(&mut self) {
        self.tls.send_close_notify();
        self.flush();
    }

    fn close(&mut self) {
        self.half_close();
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn kill(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.gate.set(false);
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

fn read_all(mut socket: TcpStream, tell: &Sender<Arrived>, gate: &Gate) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        gate.wait();
        let arrived = match socket.read(&mut buffer) {
            Ok(0) => Arrived::End(None),
            Ok(n) => Arrived::Bytes(buffer.get(..n).unwrap_or_default().to_vec()),
            Err(e) => Arrived::End(Some(e.to_string())),
        };
        let last = matches!(arrived, Arrived::End(_));
        if tell.send(arrived).is_err() || last {
            return;
        }
    }
}

/// Waits until `condition` holds, asking again and again; `what` names it where it never does.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "never happened: {what}");
        std::thread::yield_now();
    }
}

/// What rustls needs to know.
pub(crate) fn config(options: &Options) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] =
        if options.tls12 { &[&rustls::version::TLS12] } else { rustls::DEFAULT_VERSIONS };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.clone()));
            builder.with_client_auth_cert(vec![CertificateDer::from(identity.certificate.clone())], key).unwrap()
        }
    };
    config.alpn_protocols.extend(options.alpn.clone());
    config
}

/// Accepts every certificate, but still checks that the server holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
