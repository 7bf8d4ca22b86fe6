//! Where a server is.

use std::fmt;
use std::net::IpAddr;

use downstream::protocol::{DEFAULT_PORT, escaped};
use rustls::pki_types::ServerName;

use crate::error::Failure;

/// A host and a port. Host names are folded to lower case and lose a final stop; addresses have their
/// one canonical form: the same server is always the same text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

/// A text that names no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" names no server: write HOST, HOST:PORT or [IPV6]:PORT", escaped(.0))]
pub(crate) struct BadEndpoint(String);

impl Endpoint {
    /// Reads `HOST`, `HOST:PORT`, `ADDRESS`, `ADDRESS:PORT` or `[IPV6]:PORT`. Without a port it is
    /// [`DEFAULT_PORT`].
    ///
    /// # Errors
    /// [`BadEndpoint`] for every other text, port 0 included.
    pub(crate) fn parse(text: &str) -> Result<Endpoint, BadEndpoint> {
        Endpoint::read(text).ok_or_else(|| BadEndpoint(text.to_owned()))
    }

    fn read(text: &str) -> Option<Endpoint> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                address.parse::<std::net::Ipv6Addr>().ok()?;
                (address, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            // Two colons without brackets: an IPv6 address and no port.
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().filter(|p| *p != 0)?,
            Some(_) => return None,
        };
        let host = match host.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
        };
        let name = ServerName::try_from(host.clone()).ok()?;
        Some(Endpoint { host, port, name })
    }

    /// The name or address, without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What a certificate must be for.
    pub(super) fn server_name(&self) -> ServerName<'static> {
        self.name.clone()
    }
}

/// `HOST:PORT`, which [`Endpoint::parse`] reads back.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl From<BadEndpoint> for Failure {
    fn from(bad: BadEndpoint) -> Failure {
        Failure::usage(bad.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_server() {
        for (text, canonical) in [
            ("example.org", "example.org:7667"),
            ("Example.ORG.:99", "example.org:99"),
            ("localhost:1", "localhost:1"),
            ("127.0.0.1", "127.0.0.1:7667"),
            ("127.0.0.1:65535", "127.0.0.1:65535"),
            ("::1", "[::1]:7667"),
            ("[::1]", "[::1]:7667"),
            ("[0:0::0:1]:99", "[::1]:99"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), canonical, "{text}");
            assert_eq!(Endpoint::parse(canonical), Ok(endpoint));
        }
        for bad in [
            "",
            ":",
            ":1",
            "a b",
            "host:",
            "host:x",
            "host:0",
            "host:+1",
            "host:65536",
            "a:1:2",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[host]:1",
            "#x",
            "-a:1",
            "https://example.org",
            "fe80::1%eth0",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            Endpoint::parse("a\u{1b}b").unwrap_err().to_string(),
            "\"a\\u{1b}b\" names no server: write HOST, HOST:PORT or [IPV6]:PORT"
        );
    }
}
