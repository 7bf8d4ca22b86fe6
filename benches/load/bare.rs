//! The limit of the parts: mio and rustls, rooms of connections, and nothing else. No accounts, no store,
//! no checks. It runs as a process of its own (`load bare CERT KEY`), prints its port and ends with its
//! standard input.
//!
//! `JOIN room` is answered `OK`; every further line goes to all others of the room, one TLS record and one
//! write a connection a turn. But [`ASK`] is answered with a page that lies ready.

use std::collections::HashMap;
use std::io::{self, IoSlice, Read, Write};
use std::path::Path;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::crypto::aws_lc_rs;
use rustls::{ServerConfig, ServerConnection};

use crate::Failure;
use crate::fleet::split;

/// Asks for a page.
pub(crate) const ASK: &str = "PAGE\n";
/// Plaintext that is given to TLS before it is written, as much as the daemon gives: the reader opens it while the
/// next is sealed.
const BURST: usize = 64 * 1024;

const LISTENER: Token = Token(usize::MAX);

struct Conn {
    socket: TcpStream,
    tls: ServerConnection,
    room: Option<usize>,
    partial: Vec<u8>,
    out: Vec<u8>,
    dirty: bool,
}

/// Serves until it is killed or its standard input ends.
pub(crate) fn serve(cert: &Path, key: &Path) -> Result<(), Failure> {
    let config = Arc::new(config(cert, key)?);
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", listener.local_addr()?.port())?;
    stdout.flush()?;
    // A parent that died must not leave a server behind.
    std::thread::Builder::new().spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    })?;
    let mut events = Events::with_capacity(1024);
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut names: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut rooms: Vec<Vec<usize>> = Vec::new();
    let mut dirty: Vec<usize> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut plain = vec![0; 16 * 1024];
    let page = page();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in events.iter() {
            let Token(index) = event.token();
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    let index = free.pop().unwrap_or_else(|| {
                        conns.push(None);
                        conns.len() - 1
                    });
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut socket, Token(index), interest)?;
                    let mut tls = ServerConnection::new(Arc::clone(&config)).map_err(|e| e.to_string())?;
                    tls.set_buffer_limit(None); // it trusts its readers
                    let (partial, out) = (Vec::new(), Vec::new());
                    conns[index] = Some(Conn { socket, tls, room: None, partial, out, dirty: false });
                }
                continue;
            }
            let Some(conn) = conns.get_mut(index).and_then(Option::as_mut) else { continue };
            let mut lines: Vec<Vec<u8>> = Vec::new();
            let alive = !event.is_readable() || conn.read(&mut buffer, &mut plain, &mut lines);
            mark(&mut dirty, conn, index);
            for line in lines {
                if line == ASK.trim_end().as_bytes() {
                    if let Some(conn) = conns[index].as_mut() {
                        conn.out.extend_from_slice(&page);
                    }
                    continue;
                }
                let Some(room) = conns[index].as_ref().and_then(|conn| conn.room) else {
                    let next = rooms.len();
                    let room = *names.entry(line).or_insert(next);
                    if room == next {
                        rooms.push(Vec::new());
                    }
                    rooms[room].push(index);
                    if let Some(conn) = conns[index].as_mut() {
                        conn.room = Some(room);
                        conn.out.extend_from_slice(b"OK\n");
                    }
                    continue;
                };
                for &other in rooms[room].iter().filter(|&&other| other != index) {
                    if let Some(conn) = conns[other].as_mut() {
                        conn.out.extend_from_slice(&line);
                        conn.out.push(b'\n');
                        mark(&mut dirty, conn, other);
                    }
                }
            }
            if !alive {
                if let Some(room) = conns[index].take().and_then(|conn| conn.room) {
                    rooms[room].retain(|&other| other != index);
                }
                free.push(index);
            }
        }
        for index in std::mem::take(&mut dirty) {
            if let Some(conn) = conns[index].as_mut() {
                conn.flush();
            }
        }
    }
}

/// A page of the daemon, byte for byte as long.
fn page() -> Vec<u8> {
    let row = format!("- msg 54321 2026-01-01T00:00:00.000Z u1 u0 :{}\n", crate::works::body());
    let mut page = row.repeat(crate::works::PAGE);
    page.push_str("OK fetch count=1000 more=yes\n");
    page.into_bytes()
}

/// As the daemon does it: send(2) for one slice, which costs less than writev(2).
struct Plainly<'a>(&'a mut TcpStream);

impl Write for Plainly<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [slice] => self.0.write(slice),
            _ => self.0.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn mark(dirty: &mut Vec<usize>, conn: &mut Conn, index: usize) {
    if !std::mem::replace(&mut conn.dirty, true) {
        dirty.push(index);
    }
}

impl Conn {
    /// Takes what the socket holds. Whether the connection lives.
    fn read(&mut self, buffer: &mut [u8], plain: &mut [u8], lines: &mut Vec<Vec<u8>>) -> bool {
        loop {
            let count = match self.socket.read(buffer) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            };
            let mut bytes = &buffer[..count];
            while !bytes.is_empty() {
                if self.tls.read_tls(&mut bytes).is_err() || self.tls.process_new_packets().is_err() {
                    return false;
                }
                while let Ok(count @ 1..) = self.tls.reader().read(plain) {
                    split(&mut self.partial, &plain[..count], &mut |line| lines.push(line.to_vec()));
                }
            }
            if count < buffer.len() {
                return true;
            }
        }
    }

    fn flush(&mut self) {
        self.dirty = false;
        if !self.tls.is_handshaking() {
            for burst in std::mem::take(&mut self.out).chunks(BURST) {
                let _ = self.tls.writer().write_all(burst); // it takes everything
                self.write();
            }
        }
        self.write();
    }

    fn write(&mut self) {
        while self.tls.wants_write() && self.tls.write_tls(&mut Plainly(&mut self.socket)).is_ok() {}
    }
}

fn config(cert: &Path, key: &Path) -> Result<ServerConfig, Failure> {
    use rustls::pki_types::pem::PemObject;
    let certs = vec![rustls::pki_types::CertificateDer::from_pem_file(cert).map_err(|e| e.to_string())?];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(key).map_err(|e| e.to_string())?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(certs, key);
    config.map_err(|e| e.to_string().into())
}
