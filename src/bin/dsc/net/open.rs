//! From the name of a server to a connection that was greeted.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use downstream::protocol::{ALPN, Hello, LineSplitter, ServerLine, answer::SERVER_LINE_MAX, escaped};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{AlertDescription, ClientConfig, ClientConnection};

use super::dialogue::quoted;
use super::endpoint::Endpoint;
use super::trust::{FirstUse, Judge, Trust, TrustError};
use super::wire::{End, Fault, Wire};
use crate::error::{Exit, Failure};

/// Addresses of one name that are tried. Names have a handful; a longer list is a mistake or an attack.
const ADDRESSES_MAX: usize = 8;
/// Longest greeting, in bytes: what is longer is some other protocol.
const GREETING_MAX: usize = 4096;

/// There is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The name has no address.
    #[error("{host}: the name cannot be resolved: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// Nobody answers at any of its addresses.
    #[error("{endpoint} cannot be reached: {}", tries(.tried))]
    Unreachable {
        /// The server.
        endpoint: String,
        /// Each address, and what happened there.
        tried: Vec<(SocketAddr, io::Error)>,
    },
    /// What answers does not speak TLS.
    #[error("{0} does not speak TLS")]
    NotTls(String),
    /// What answers speaks TLS, but not this protocol.
    #[error("{endpoint} is no DownStream server: {what}")]
    NotDownStream {
        /// The server.
        endpoint: String,
        /// What it did instead.
        what: String,
    },
    /// The server has no room, or lets nobody in.
    #[error("{endpoint} refuses the connection: {why}")]
    Refused {
        /// The server.
        endpoint: String,
        /// What it says.
        why: String,
    },
    /// TLS failed.
    #[error("the connection to {endpoint} failed: {why}")]
    Failed {
        /// The server.
        endpoint: String,
        /// What went wrong.
        why: String,
    },
    /// The server took too long.
    #[error("{endpoint} did not greet within {} s", waited.as_secs())]
    Slow {
        /// The server.
        endpoint: String,
        /// The time it had.
        waited: Duration,
    },
    /// Its certificate is not believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

fn tries(tried: &[(SocketAddr, io::Error)]) -> String {
    let texts: Vec<String> = tried.iter().map(|(address, error)| format!("{address}: {error}")).collect();
    texts.join("; ")
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        let message = error.to_string();
        let failure = Failure::new(Exit::Network, message);
        match error {
            OpenError::Trust(error) => error.into(),
            OpenError::Resolve { .. } => failure.hint("is the name right, and is there a network?"),
            OpenError::Unreachable { .. } => failure.hint("is the server running, and is the port right?"),
            OpenError::NotTls(_) | OpenError::NotDownStream { .. } | OpenError::Slow { .. } => {
                failure.hint("is it the right port? DownStream's is 7667 unless the operator chose another")
            }
            OpenError::Refused { .. } | OpenError::Failed { .. } => failure,
        }
    }
}

/// A connection that was greeted.
pub(super) struct Greeted {
    pub(super) wire: Wire,
    /// What may have come behind the greeting.
    pub(super) lines: LineSplitter,
    pub(super) hello: Hello,
    pub(super) first_use: Option<FirstUse>,
}

/// Connects, shakes hands and is greeted, within `timeout` for each address and again for the rest.
pub(super) fn open(endpoint: &Endpoint, trust: &Trust, timeout: Duration) -> Result<Greeted, OpenError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let judge = Arc::new(Judge::new(endpoint, trust, Arc::clone(&provider))?);
    let failed = |why: String| OpenError::Failed { endpoint: endpoint.to_string(), why };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&judge) as _)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session shows no certificate, and so cannot be judged.
    config.resumption = Resumption::disabled();
    let tls =
        ClientConnection::new(Arc::new(config), endpoint.server_name()).map_err(|error| failed(error.to_string()))?;

    let socket = connect(endpoint, timeout)?;
    // What is written is written whole, so waiting to fill a segment gains nothing.
    socket.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
    socket.set_nonblocking(true).map_err(|error| failed(error.to_string()))?;
    let mut wire = Wire::new(socket, tls);
    let mut lines = LineSplitter::new(GREETING_MAX);
    let hello = match greeting(&mut wire, &mut lines, endpoint, timeout) {
        Ok(hello) => hello,
        Err(error) => return Err(judge.refusal().map_or(error, OpenError::Trust)),
    };
    lines.set_limit(SERVER_LINE_MAX);
    let first_use = judge.remember()?;
    Ok(Greeted { wire, lines, hello, first_use })
}

fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<TcpStream, OpenError> {
    let unresolved = |error| OpenError::Resolve { host: endpoint.host().to_owned(), error };
    let addresses = (endpoint.host(), endpoint.port()).to_socket_addrs().map_err(unresolved)?;
    let mut tried: Vec<(SocketAddr, io::Error)> = Vec::new();
    for address in addresses.take(ADDRESSES_MAX) {
        if tried.iter().any(|(before, _)| *before == address) {
            continue;
        }
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => return Ok(socket),
            Err(error) => tried.push((address, error)),
        }
    }
    match tried.is_empty() {
        true => Err(unresolved(io::Error::other("it has no address"))),
        false => Err(OpenError::Unreachable { endpoint: endpoint.to_string(), tried }),
    }
}

fn greeting(
    wire: &mut Wire,
    lines: &mut LineSplitter,
    endpoint: &Endpoint,
    timeout: Duration,
) -> Result<Hello, OpenError> {
    let deadline = Instant::now() + timeout;
    let other = |what: String| OpenError::NotDownStream { endpoint: endpoint.to_string(), what };
    loop {
        wire.turn(None, Some(deadline), lines).map_err(|fault| explain(fault, endpoint))?;
        match lines.next_line() {
            Some(Ok(line)) => return read_greeting(line, endpoint),
            Some(Err(_)) => return Err(other("it begins with something that is no line of text".to_owned())),
            None => {}
        }
        match wire.end() {
            Some(_) if wire.is_handshaking() => {
                let why = "the server closed it before TLS was agreed on".to_owned();
                return Err(OpenError::Failed { endpoint: endpoint.to_string(), why });
            }
            Some(End::Cleanly) => return Err(other("it closed the connection without a greeting".to_owned())),
            Some(End::Cut) => {
                let why = "it was cut before the server had greeted".to_owned();
                return Err(OpenError::Failed { endpoint: endpoint.to_string(), why });
            }
            None => {}
        }
        if Instant::now() >= deadline {
            return Err(OpenError::Slow { endpoint: endpoint.to_string(), waited: timeout });
        }
    }
}

fn read_greeting(line: &str, endpoint: &Endpoint) -> Result<Hello, OpenError> {
    let other = |what: String| OpenError::NotDownStream { endpoint: endpoint.to_string(), what };
    let refused = |why: String| OpenError::Refused { endpoint: endpoint.to_string(), why: escaped(&why) };
    match ServerLine::parse(line) {
        ServerLine::Event(fields) if fields.kind() == "hello" => match fields.word(1) {
            Some(protocol) if protocol != downstream::protocol::PROTOCOL => {
                let (theirs, ours) = (escaped(protocol), downstream::protocol::PROTOCOL);
                Err(other(format!("it speaks {theirs}, and this program {ours}")))
            }
            _ => Hello::read(&fields).map_err(|malformed| other(format!("its greeting is broken: {malformed}"))),
        },
        ServerLine::Event(fields) if fields.kind() == "bye" => {
            Err(refused(fields.text().or(fields.word(1)).unwrap_or("it says goodbye").to_owned()))
        }
        ServerLine::Err { code, fields, .. } => {
            Err(refused(format!("{code}: {}", fields.text().unwrap_or("it does not say why"))))
        }
        _ => Err(other(format!("it says {}", quoted(line)))),
    }
}

/// What a fault in the handshake means.
fn explain(fault: Fault, endpoint: &Endpoint) -> OpenError {
    let endpoint = endpoint.to_string();
    match fault {
        Fault::Tls(rustls::Error::InvalidMessage(_)) => OpenError::NotTls(endpoint),
        Fault::Tls(
            rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            | rustls::Error::NoApplicationProtocol,
        ) => OpenError::NotDownStream { endpoint, what: "it speaks other protocols over TLS".to_owned() },
        fault => OpenError::Failed { endpoint, why: escaped(&fault.to_string()) },
    }
}
