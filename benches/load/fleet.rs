//! Many TLS clients on one mio loop, made to cost less than any server they drive: one `read` for all that
//! a socket holds, lines counted in place, one `write` a turn.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use crate::Failure;

/// The longest that one turn waits, so that a wait for a condition ends by its own clock.
const PATIENCE: Duration = Duration::from_millis(50);
/// What one read takes at most; a socket that gave less is empty.
const READ: usize = 256 * 1024;

struct Client {
    socket: TcpStream,
    tls: ClientConnection,
    /// The beginning of a line.
    partial: Vec<u8>,
    dirty: bool,
}

/// See the module.
pub(crate) struct Fleet {
    poll: Poll,
    events: Events,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    address: SocketAddr,
    clients: Vec<Option<Client>>,
    dirty: Vec<usize>,
    buffer: Vec<u8>,
    plain: Vec<u8>,
    /// Reads that brought something, of all clients.
    pub(crate) reads: u64,
}

/// What a client says in answer to a line: who, and what.
pub(crate) type Says = Vec<(usize, String)>;

impl Fleet {
    pub(crate) fn new(address: SocketAddr) -> Result<Fleet, Failure> {
        Ok(Fleet {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            config: Arc::new(config()?),
            name: ServerName::try_from("bench.test").map_err(|e| e.to_string())?,
            address,
            clients: Vec::new(),
            dirty: Vec::new(),
            buffer: vec![0; READ],
            plain: vec![0; 32 * 1024],
            reads: 0,
        })
    }

    /// Connects a client; its number. The handshake goes on by itself.
    pub(crate) fn connect(&mut self) -> Result<usize, Failure> {
        let socket = std::net::TcpStream::connect(self.address)?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let mut socket = TcpStream::from_std(socket);
        let index = self.clients.len();
        self.poll.registry().register(&mut socket, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let mut tls = ClientConnection::new(Arc::clone(&self.config), self.name.clone()).map_err(|e| e.to_string())?;
        tls.set_buffer_limit(None); // what is said is bounded by the works
        self.clients.push(Some(Client { socket, tls, partial: Vec::new(), dirty: false }));
        self.mark(index);
        Ok(index)
    }

    /// Ends a connection at once.
    pub(crate) fn close(&mut self, index: usize) {
        if let Some(place) = self.clients.get_mut(index) {
            *place = None;
        }
    }

    /// Queues a line, with its ending, for the end of the turn.
    pub(crate) fn say(&mut self, index: usize, line: &str) -> Result<(), Failure> {
        if let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) {
            client.tls.writer().write_all(line.as_bytes())?;
            self.mark(index);
        }
        Ok(())
    }

    fn mark(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut)
            && !std::mem::replace(&mut client.dirty, true)
        {
            self.dirty.push(index);
        }
    }

    /// Writes what was said, waits for something to read and hands the lines over.
    pub(crate) fn turn(&mut self, on: &mut dyn FnMut(usize, &[u8], &mut Says)) -> Result<(), Failure> {
        self.flush()?;
        match self.poll.poll(&mut self.events, Some(PATIENCE)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let mut says = Says::new();
        let mut write = Vec::new();
        for event in self.events.iter() {
            let Token(index) = event.token();
            if event.is_writable() {
                write.push(index);
            }
            if !event.is_readable() {
                continue;
            }
            let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else { continue };
            loop {
                let count = match client.socket.read(&mut self.buffer) {
                    Ok(0) => return Err(format!("the server closed connection {index}").into()),
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error.into()),
                };
                self.reads += 1;
                client.take(&self.buffer[..count], &mut self.plain, &mut |line| on(index, line, &mut says))?;
                if count < self.buffer.len() {
                    break; // a stream that gives less is empty; what comes next is a new event (epoll(7))
                }
            }
            if client.tls.wants_write() {
                write.push(index);
            }
        }
        for index in write {
            self.mark(index);
        }
        for (index, line) in says {
            self.say(index, &line)?;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        for index in std::mem::take(&mut self.dirty) {
            let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else { continue };
            client.dirty = false;
            while client.tls.wants_write() {
                match client.tls.write_tls(&mut client.socket) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break, // a writable event comes
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

impl Client {
    fn take(&mut self, mut bytes: &[u8], plain: &mut [u8], on: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            self.tls.process_new_packets().map_err(|e| e.to_string())?;
            loop {
                match self.tls.reader().read(plain) {
                    Ok(0) => break,
                    Ok(count) => split(&mut self.partial, &plain[..count], on),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

/// Hands over each whole line without its ending and keeps the beginning of the next.
pub(crate) fn split(partial: &mut Vec<u8>, mut bytes: &[u8], on: &mut dyn FnMut(&[u8])) {
    while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        if partial.is_empty() {
            on(line);
        } else {
            partial.extend_from_slice(line);
            on(partial);
            partial.clear();
        }
        bytes = rest;
    }
    partial.extend_from_slice(bytes);
}

/// TLS 1.3 with one suite, so that every server spends the same on a byte, and full handshakes.
fn config() -> Result<ClientConfig, Failure> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384];
    let provider = Arc::new(provider);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Takes every certificate: the servers are our own, on loopback.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
