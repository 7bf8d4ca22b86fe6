//! What the daemon has from the machine around it: systemd's notifications, watchdog, credentials and
//! sockets; its own sockets otherwise; file descriptors.
//!
//! Nothing here blocks: a notification that systemd does not take at once is dropped, which at worst
//! leaves an old status line.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;

use crate::logging::escaped;

/// Connections that may wait to be accepted: more than a crowd that comes back after a restart; the
/// kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// File descriptors beside the connections: standard streams, the listeners, the database with its log
/// and index twice, poll, waker, signals, systemd, and room for a backup.
pub const DESCRIPTOR_OVERHEAD: u64 = 64;

/// The line to systemd. Without systemd everything here does nothing.
#[derive(Debug, Default)]
pub struct Service {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Service {
    /// Finds out from the environment whether systemd started the process and what it expects.
    pub fn from_env() -> Service {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!("systemd cannot be notified at {}: {error}", escaped(&name.to_string_lossy()));
                None
            }
        });
        // Twice within the time that systemd gives, as sd_watchdog_enabled(3) advises.
        let watchdog = sd_notify::watchdog_enabled().map(|timeout| timeout / 2).filter(|_| socket.is_some());
        Service { socket, watchdog }
    }

    /// How often [`Service::watchdog`] must be called, if at all.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Clients can connect; also the end of a reload.
    pub fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&escaped(status))]);
    }

    /// A reload has begun. `Type=notify-reload` needs the time with it (sd_notify(3)).
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => log::warn!("no monotonic time: {error}"),
        }
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// What `systemctl status` shows.
    pub fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(&escaped(status))]);
    }

    /// The loop still turns.
    pub fn watchdog(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = socket.send(message.as_bytes()) {
            log::debug!("systemd did not take a notification: {error}");
        }
    }
}

/// Connects to the socket of sd_notify(3): a path, or with a first `@` a name without a file.
fn connect(name: &OsString) -> io::Result<UnixDatagram> {
    use std::os::unix::net::SocketAddr;
    let address = match name.as_bytes().split_first() {
        Some((b'@', rest)) => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The directory of the credentials that systemd hands over (`LoadCredential=`).
pub fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// Why there is nothing to listen on: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address cannot be had.
    #[error("cannot listen on {address}: {error}{}", hint(error))]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// What systemd handed over is no TCP socket.
    #[error("a socket that systemd handed over cannot be used: {0}; downstream.socket may have ListenStream= only")]
    Activation(io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has it, perhaps another downstream: stop that one, or change listen"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has this address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// Opens the sockets that the daemon listens on, non-blocking: those that systemd handed over, else one
/// for each address.
///
/// # Errors
/// The first socket that cannot be had; then none is open.
pub fn listeners(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    let handed = activated().map_err(ListenError::Activation)?;
    if !handed.is_empty() {
        log::info!("listening on {} sockets of systemd; `listen` does not count", handed.len());
        return Ok(handed);
    }
    addresses.iter().map(|&address| bind(address).map_err(|error| ListenError::Bind { address, error })).collect()
}

fn activated() -> io::Result<Vec<TcpListener>> {
    let mut handed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::with_capacity(handed.len());
    for index in 0..handed.len() {
        if let Some(listener) = handed.take_tcp_listener(index)? {
            listener.set_nonblocking(true)?;
            listeners.push(listener);
        }
    }
    Ok(listeners)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart must not wait for the connections of before to time out.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // Each address means itself, so that "0.0.0.0" and "[::]" can stand side by side.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Raises the soft limit of file descriptors to the hard one, and returns what now holds. (The soft one
/// is low for the sake of programs that use select(2); this one does not.)
pub fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    now.current.unwrap_or(u64::MAX)
}

/// What to tell an operator whose `limits.connections` needs more file descriptors than `available`.
/// Nothing where the number is switched off: then the descriptors are the limit.
pub fn descriptor_warning(connections: usize, available: u64) -> Option<String> {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    let wanted = connections.saturating_add(DESCRIPTOR_OVERHEAD);
    (wanted > available && connections != u64::MAX).then(|| {
        format!(
            "limits.connections is {connections}, but the process may open {available} files: raise the limit to \
             {wanted} (LimitNOFILE= in the unit, or ulimit -n), or lower limits.connections to {}",
            available.saturating_sub(DESCRIPTOR_OVERHEAD)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn service(socket: UnixDatagram) -> Service {
        Service { socket: Some(socket), watchdog: None }
    }

    #[test]
    fn systemd_hears_of_every_turn() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).expect("a socket");
        let service = service(connect(&path.into_os_string()).expect("a connection"));

        service.ready("3 sessions\nREADY=0");
        assert_eq!(received(&systemd), "READY=1\nSTATUS=3 sessions\\nREADY=0\n");
        service.reloading();
        let reloading = received(&systemd);
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("the time with it");
        assert!(time.trim_end().parse::<u64>().is_ok(), "{reloading}");
        service.status("idle");
        assert_eq!(received(&systemd), "STATUS=idle\n");
        service.watchdog();
        assert_eq!(received(&systemd), "WATCHDOG=1\n");
        service.stopping();
        assert_eq!(received(&systemd), "STOPPING=1\n");
    }

    #[test]
    fn the_notification_socket_may_have_no_file() {
        let name = format!("downstream-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
        let systemd = UnixDatagram::bind_addr(&address).expect("a socket");
        service(connect(&OsString::from(format!("@{name}"))).expect("a connection")).watchdog();
        assert_eq!(received(&systemd), "WATCHDOG=1\n");
    }

    #[test]
    fn a_deaf_systemd_blocks_nobody() {
        let (socket, _deaf) = UnixDatagram::pair().expect("a pair");
        socket.set_nonblocking(true).expect("a flag");
        let service = service(socket);
        for _ in 0..100_000 {
            service.watchdog();
        }
        Service::default().ready("nobody listens");
    }

    #[test]
    fn both_families_can_have_one_port_and_a_taken_one_is_named() {
        let first = listeners(&["127.0.0.1:0".parse().expect("an address")]).expect("a socket");
        let taken = first[0].local_addr().expect("an address");
        let error = listeners(&[taken]).expect_err("a refusal").to_string();
        assert!(error.starts_with(&format!("cannot listen on {taken}: Address already in use")), "{error}");
        assert!(
            error.ends_with("; another program has it, perhaps another downstream: stop that one, or change listen")
        );

        // A machine without IPv6 has nothing to test here.
        if let Ok(six) = bind("[::]:0".parse().expect("an address")) {
            assert!(sockopt::ipv6_v6only(&six).expect("an option"), "it would take the port of IPv4 too");
        }
    }

    #[test]
    fn too_few_descriptors_are_warned_about_with_the_numbers() {
        assert_eq!(descriptor_warning(936, 1000), None);
        assert_eq!(descriptor_warning(usize::MAX, 1000), None);
        assert_eq!(
            descriptor_warning(937, 1000).as_deref(),
            Some(
                "limits.connections is 937, but the process may open 1000 files: raise the limit to 1001 \
                 (LimitNOFILE= in the unit, or ulimit -n), or lower limits.connections to 936"
            )
        );
        assert!(raise_descriptors() >= getrlimit(Resource::Nofile).current.unwrap_or(0));
    }
}
