//! One connection: a socket, TLS over bounded buffers, lines in and chunks out.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;
use rustls::ServerConnection;
use rustls::server::{AcceptedAlert, Acceptor};

use crate::protocol::{LineSplitter, MAX_LINE_BEFORE_LOGIN};
use crate::session::delivery::Lines;
use crate::session::{ConnId, Peer};
use crate::tls::{self, Tls};

/// Plaintext that is read from TLS at a time: a TLS record.
pub(super) const RECORD: usize = 16 * 1024;
/// Plaintext that is given to TLS at a time, as much as rustls takes: four records, one `writev`.
const BURST: usize = 4 * RECORD;
/// Plaintext of one connection that goes out in one turn, as much as is read of one: a piece of a file has over a
/// megabyte, and others do not wait until a fast reader has taken all of it.
const FLUSH_BUDGET: u64 = BURST as u64;

/// What waits for the reader: its own, or shared with others.
#[derive(Debug)]
enum Chunk {
    Own(Vec<u8>),
    Shared(Lines),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Own(bytes) => bytes,
            Chunk::Shared(lines) => lines,
        }
    }
}

/// How far the connection has come.
enum Stage {
    /// Nothing was understood yet.
    Hello(Box<Acceptor>),
    /// The handshake goes on.
    Handshake(Box<ServerConnection>),
    /// Lines come and go.
    Open(Box<ServerConnection>),
    /// The last bytes are on their way, then everything that comes is dropped.
    Closing(Option<Box<ServerConnection>>),
}

/// What became of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// Something may have come; more may wait in the socket.
    More,
    /// The socket is empty for now.
    Drained,
    /// The handshake has just ended.
    Opened,
    /// It was no TLS, or the connection broke.
    Broken,
}

/// What became of writing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flushed {
    /// The socket took something.
    pub(super) progress: bool,
    /// It may take more at once.
    pub(super) more: bool,
}

/// See the module.
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) address: IpAddr,
    socket: TcpStream,
    stage: Stage,
    /// Lines that came and wait.
    pub(super) lines: LineSplitter,
    out: VecDeque<Chunk>,
    /// Bytes of the first chunk that TLS has taken.
    taken: usize,
    /// Bytes given to TLS since the connection opened.
    handed: u64,
    /// Bytes that the operating system has taken, as the core knows.
    pub(super) flushed: u64,
    /// The socket may have more to read.
    pub(super) readable: bool,
    /// The end of what the other side sends was seen coming: reading goes on until it is there.
    pub(super) end_is_near: bool,
    /// The other side sends nothing more, or nothing more is wanted of it.
    pub(super) ended: bool,
    /// The core knows that.
    pub(super) ended_told: bool,
    /// The stream was ended on this side.
    finished: bool,
    /// On the list of those to be flushed.
    pub(super) dirty: bool,
    /// On the list of those whose lines or bytes wait.
    pub(super) ready: bool,
    pub(super) deadlines: Deadlines,
}

/// When something must have happened.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Deadlines {
    /// The handshake must be done.
    pub(super) handshake: Option<Instant>,
    /// What the core asked for.
    pub(super) session: Option<Instant>,
    /// The line that was begun must be finished.
    pub(super) line: Option<Instant>,
    /// The reader must have taken something.
    pub(super) stalled: Option<Instant>,
    /// The end, whatever is left.
    pub(super) close: Option<Instant>,
    /// For which time the connection stands in the queue of timers.
    pub(super) armed: Option<Instant>,
}

impl Deadlines {
    /// The next of them.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.handshake, self.session, self.line, self.stalled, self.close].into_iter().flatten().min()
    }
}

/// A socket that was emptied by a read that gave less than was asked for: what comes later is a new event
/// (epoll(7), question 9), except for an end of the stream that is there already.
struct Measured<'a> {
    socket: &'a mut TcpStream,
    emptied: bool,
}

impl Read for Measured<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(buffer)?;
        self.emptied = count < buffer.len();
        Ok(count)
    }
}

/// A socket that is given one slice with send(2) and several with writev(2): most flushes are one record, and
/// writev takes the longer way, through the layer of files.
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

impl Conn {
    pub(super) fn new(id: ConnId, socket: TcpStream, address: IpAddr) -> Conn {
        Conn {
            id,
            address,
            socket,
            stage: Stage::Hello(Box::default()),
            lines: LineSplitter::new(MAX_LINE_BEFORE_LOGIN),
            out: VecDeque::new(),
            taken: 0,
            handed: 0,
            flushed: 0,
            readable: true,
            end_is_near: false,
            ended: false,
            ended_told: false,
            finished: false,
            dirty: false,
            ready: false,
            deadlines: Deadlines::default(),
        }
    }

    pub(super) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing(_))
    }

    /// Still before the end of its handshake.
    pub(super) fn is_strange(&self) -> bool {
        matches!(self.stage, Stage::Hello(_) | Stage::Handshake(_))
    }

    /// What the transport knows of the other side of an open connection.
    pub(super) fn peer(&self) -> Option<Peer> {
        let Stage::Open(connection) = &self.stage else { return None };
        Some(Peer {
            address: self.address,
            tls: tls::version_name(connection),
            certificate: tls::client_certificate(connection),
        })
    }

    // ---- in ----------------------------------------------------------------------------------------

    /// Reads once from the socket and takes what lines came of it. `scratch` holds a [`RECORD`].
    pub(super) fn fill(&mut self, tls: &Tls, scratch: &mut [u8]) -> Filled {
        match self.try_fill(tls, scratch) {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Filled::Drained
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Filled::More,
            Err(_) => Filled::Broken,
        }
    }

    fn try_fill(&mut self, tls: &Tls, scratch: &mut [u8]) -> io::Result<Filled> {
        match &mut self.stage {
            Stage::Hello(acceptor) => {
                if acceptor.read_tls(&mut self.socket)? == 0 {
                    return Ok(Filled::Broken);
                }
                let accepted = match acceptor.accept() {
                    Ok(None) => return Ok(Filled::More),
                    Ok(Some(accepted)) => tls.connect(accepted),
                    Err((error, alert)) => Err((error, alert)),
                };
                match accepted {
                    Ok(connection) => {
                        self.stage = Stage::Handshake(Box::new(connection));
                        self.process(scratch)
                    }
                    Err((error, alert)) => Ok(self.not_tls(&error, alert)),
                }
            }
            Stage::Handshake(connection) | Stage::Open(connection) => {
                let mut socket = Measured { socket: &mut self.socket, emptied: false };
                let count = connection.read_tls(&mut socket)?;
                self.readable = self.end_is_near || !socket.emptied;
                if count == 0 {
                    if !matches!(self.stage, Stage::Open(_)) {
                        return Ok(Filled::Broken);
                    }
                    self.ended = true;
                }
                self.process(scratch)
            }
            Stage::Closing(_) => {
                // Dropped unseen, so that what was sent last can be read before a reset.
                if self.socket.read(scratch)? > 0 {
                    return Ok(Filled::More);
                }
                self.ended = true;
                self.readable = false;
                Ok(if self.finished { Filled::Broken } else { Filled::Drained })
            }
        }
    }

    fn process(&mut self, scratch: &mut [u8]) -> io::Result<Filled> {
        let (Stage::Handshake(connection) | Stage::Open(connection)) = &mut self.stage else {
            return Ok(Filled::Broken);
        };
        if let Err(error) = connection.process_new_packets() {
            log::debug!("connection {}: {error}", self.id);
            // rustls has queued an alert that says why.
            drop(connection.write_tls(&mut self.socket));
            return Ok(Filled::Broken);
        }
        // Plaintext can wait inside TLS with no event of the socket to come, so all of it is taken.
        loop {
            match connection.reader().read(scratch) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(count) => self.lines.fill(scratch.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.ended = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.ended {
            self.readable = false;
        }
        if matches!(self.stage, Stage::Handshake(_)) && !self.connection().is_none_or(|tls| tls.is_handshaking()) {
            if let Stage::Handshake(connection) = std::mem::replace(&mut self.stage, Stage::Closing(None)) {
                self.stage = Stage::Open(connection);
            }
            return Ok(Filled::Opened);
        }
        Ok(if self.readable { Filled::More } else { Filled::Drained })
    }

    fn not_tls(&mut self, error: &rustls::Error, mut alert: AcceptedAlert) -> Filled {
        log::debug!("connection {}: {error}", self.id);
        drop(alert.write(&mut self.socket));
        Filled::Broken
    }

    // ---- out ---------------------------------------------------------------------------------------

    /// Queues lines of its own.
    pub(super) fn queue(&mut self, bytes: Vec<u8>) {
        self.out.push_back(Chunk::Own(bytes));
    }

    /// Queues lines that others get too.
    pub(super) fn queue_shared(&mut self, lines: Lines) {
        self.out.push_back(Chunk::Shared(lines));
    }

    /// Whether something waits, in the queue or inside TLS.
    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty() || self.connection().is_some_and(|connection| connection.wants_write())
    }

    fn connection(&self) -> Option<&ServerConnection> {
        match &self.stage {
            Stage::Hello(_) => None,
            Stage::Handshake(connection) | Stage::Open(connection) => Some(connection),
            Stage::Closing(connection) => connection.as_deref(),
        }
    }

    /// Writes what the socket takes, within the budget: everything that a turn brought in one record and one write,
    /// if it fits.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) fn flush(&mut self, scratch: &mut Vec<u8>) -> io::Result<Flushed> {
        let connection = match &mut self.stage {
            Stage::Hello(_) | Stage::Closing(None) => return Ok(Flushed { progress: false, more: false }),
            Stage::Handshake(connection) | Stage::Open(connection) | Stage::Closing(Some(connection)) => connection,
        };
        let begin = self.handed;
        let mut progress = false;
        loop {
            while connection.wants_write() {
                match connection.write_tls(&mut Plainly(&mut self.socket)) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(_) => progress = true,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(Flushed { progress, more: false });
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.flushed = self.handed;
            let Some(first) = self.out.front() else {
                if self.out.capacity() > 64 {
                    self.out = VecDeque::new(); // what a slow time needed is not kept
                }
                return Ok(Flushed { progress, more: false });
            };
            if self.handed - begin >= FLUSH_BUDGET {
                return Ok(Flushed { progress, more: true });
            }
            let rest = first.bytes().get(self.taken..).unwrap_or_default();
            let took = if self.out.len() == 1 || rest.len() >= BURST {
                connection.writer().write(rest)?
            } else {
                scratch.clear();
                scratch.extend_from_slice(rest);
                for chunk in self.out.iter().skip(1) {
                    if scratch.len() >= BURST {
                        break;
                    }
                    scratch.extend_from_slice(chunk.bytes());
                }
                connection.writer().write(scratch)?
            };
            self.handed += took as u64;
            self.taken += took;
            while let Some(first) = self.out.front().filter(|first| first.bytes().len() <= self.taken) {
                self.taken -= first.bytes().len();
                self.out.pop_front();
            }
            debug_assert!(took > 0, "TLS was empty and takes at least a byte");
            if took == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
    }

    /// No more lines in, and when everything queued is out, the end of the stream. `tls_end` says that the
    /// stream was one and can be ended as such.
    pub(super) fn close(&mut self, tls_end: bool) {
        let stage = std::mem::replace(&mut self.stage, Stage::Closing(None));
        self.stage = match stage {
            Stage::Handshake(connection) | Stage::Open(connection) if tls_end => Stage::Closing(Some(connection)),
            Stage::Closing(connection) => Stage::Closing(connection),
            Stage::Hello(_) | Stage::Handshake(_) | Stage::Open(_) => Stage::Closing(None),
        };
        self.lines = LineSplitter::new(0);
        // Whether the other side has really ended shows when the rest of what it sends is dropped; at the
        // server's own end nothing more was wanted of it, but much may be on its way.
        self.ended = false;
        self.readable = true;
    }

    /// The last bytes are out: ends the stream, in TLS and in TCP. Answers whether it did, which is once.
    pub(super) fn finish(&mut self) -> bool {
        let Stage::Closing(connection) = &mut self.stage else { return false };
        if std::mem::replace(&mut self.finished, true) {
            return false;
        }
        if let Some(mut connection) = connection.take() {
            connection.send_close_notify();
            // A socket that took everything so far takes these few bytes too, or the reader is gone.
            drop(connection.write_tls(&mut self.socket));
        }
        drop(self.socket.shutdown(Shutdown::Write));
        true
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("id", &self.id).field("address", &self.address).finish_non_exhaustive()
    }
}

/// What handshakes begin with; replaced by a reload.
pub(super) type SharedTls = Arc<Tls>;
