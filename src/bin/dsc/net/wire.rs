//! Bytes: a socket that never blocks, TLS over bounded buffers, and waiting for either side.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Instant;

use downstream::protocol::LineSplitter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ClientConnection;
use zeroize::Zeroizing;

/// Plaintext that is read from TLS at a time: a TLS record.
const RECORD: usize = 16 * 1024;

/// The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// TLS found something wrong, on this side or the other.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The operating system did.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// How the server's side of the stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a close_notify: nothing is missing.
    Cleanly,
    /// Without: the end may have been cut off.
    Cut,
}

/// What one [`Wire::turn`] brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Turn {
    /// Something came from the server.
    pub(super) heard: bool,
    /// Something was taken by the operating system on its way to the server.
    pub(super) sent: bool,
    /// The other descriptor is ready.
    pub(super) input: bool,
}

/// A connection below the level of lines.
pub(super) struct Wire {
    socket: TcpStream,
    tls: ClientConnection,
    /// What waits to be given to TLS. Commands hold passwords: each is wiped when TLS has it, and none
    /// ever moves to a larger buffer, which would leave a copy behind.
    queue: VecDeque<Zeroizing<Vec<u8>>>,
    /// Bytes of the first that TLS has taken.
    taken: usize,
    /// Bytes in the queue.
    queued: usize,
    /// The operating system takes nothing more; what the server said before may still be read.
    deaf: bool,
    end: Option<End>,
}

impl Wire {
    /// Over a connected socket, which must not block.
    pub(super) fn new(socket: TcpStream, tls: ClientConnection) -> Wire {
        Wire { socket, tls, queue: VecDeque::new(), taken: 0, queued: 0, deaf: false, end: None }
    }

    /// Whether the handshake goes on.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// How the server's side has ended, if it has.
    pub(super) fn end(&self) -> Option<End> {
        self.end
    }

    /// Queues what is to be sent. The handshake is done: before it TLS would keep a copy of its own.
    pub(super) fn send(&mut self, bytes: Zeroizing<Vec<u8>>) {
        self.queued += bytes.len();
        self.queue.push_back(bytes);
    }

    /// Bytes that TLS has not taken yet.
    pub(super) fn queued(&self) -> usize {
        self.queued - self.taken
    }

    /// Whether nothing waits to be sent, or nothing can be.
    pub(super) fn is_flushed(&self) -> bool {
        self.deaf || (self.queue.is_empty() && !self.tls.wants_write())
    }

    /// Sends what can be sent, waits until something can be read, sent, or `also` be read, at the latest
    /// until `until`, and reads once what has come into `lines`. May return with nothing to tell.
    ///
    /// # Errors
    /// [`Fault`]; the connection is of no use then.
    pub(super) fn turn(
        &mut self,
        also: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
        lines: &mut LineSplitter,
    ) -> Result<Turn, Fault> {
        let mut turn = Turn { sent: self.flush()?, ..Turn::default() };
        if self.end.is_some() {
            return Ok(turn);
        }
        let mut wanted = PollFlags::IN;
        if !self.is_flushed() {
            wanted |= PollFlags::OUT;
        }
        let (ready, input) = {
            let mut fds = [PollFd::new(&self.socket, wanted), PollFd::new(&self.socket, PollFlags::empty())];
            let count = match also {
                Some(fd) => {
                    fds[1] = PollFd::from_borrowed_fd(fd, PollFlags::IN);
                    2
                }
                None => 1,
            };
            wait(fds.get_mut(..count).unwrap_or_default(), until)?;
            (!fds[0].revents().is_empty(), count == 2 && !fds[1].revents().is_empty())
        };
        turn.input = input;
        if ready {
            turn.heard = self.read(lines)?;
            turn.sent |= self.flush()?;
        }
        Ok(turn)
    }

    /// Gives TLS what it takes, and the operating system what TLS has; whether any went.
    ///
    /// # Errors
    /// [`Fault`]; the connection is of no use then.
    pub(super) fn flush(&mut self) -> Result<bool, Fault> {
        let mut sent = false;
        while !self.deaf {
            self.feed()?;
            if !self.tls.wants_write() {
                break;
            }
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => self.deaf = true,
                Ok(_) => sent = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Why shows in what is read: the last line of the server, or the end.
                Err(_) => self.deaf = true,
            }
        }
        Ok(sent)
    }

    fn feed(&mut self) -> Result<(), Fault> {
        while let Some(first) = self.queue.front() {
            let count = self.tls.writer().write(first.get(self.taken..).unwrap_or_default())?;
            if count == 0 {
                break;
            }
            self.taken += count;
            if self.taken == first.len() {
                self.queued -= self.taken;
                self.taken = 0;
                self.queue.pop_front();
            }
        }
        Ok(())
    }

    /// Reads once from the socket; whether anything came.
    fn read(&mut self, lines: &mut LineSplitter) -> Result<bool, Fault> {
        let count = match self.tls.read_tls(&mut self.socket) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error.into()),
        };
        let processed = self.tls.process_new_packets();
        // Also what came before a fault: it may be the line that explains it.
        let mut scratch = [0; RECORD];
        while let Ok(count @ 1..) = self.tls.reader().read(&mut scratch) {
            lines.fill(scratch.get(..count).unwrap_or_default());
        }
        match processed {
            Ok(state) if state.peer_has_closed() => self.end = Some(End::Cleanly),
            Ok(_) if count == 0 => self.end = Some(End::Cut),
            Ok(_) => {}
            Err(error) => {
                // The alert that says why, if it can be sent at once.
                let _ = self.flush();
                return Err(error.into());
            }
        }
        Ok(count > 0)
    }

    /// Ends this side of the stream, after what still waits.
    pub(super) fn close(&mut self, until: Instant) {
        // What still comes is dropped.
        let mut rest = LineSplitter::new(1);
        let mut go_on = |wire: &mut Wire| {
            let going = wire.turn(None, Some(until), &mut rest).is_ok() && Instant::now() < until;
            while rest.next_line().is_some() {}
            going
        };
        while !self.is_flushed() && self.end.is_none() && go_on(self) {}
        self.tls.send_close_notify();
        while !self.is_flushed() && self.end.is_none() && go_on(self) {}
        let _ = self.flush();
        // The server is gone, or was told: there is nobody to tell of a failure.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// Whether a descriptor can be read at this moment, or never more.
pub(super) fn is_ready(fd: BorrowedFd<'_>) -> Result<bool, Fault> {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    wait(&mut fds, Some(Instant::now()))?;
    Ok(!fds[0].revents().is_empty())
}

/// Waits until one is ready or the time has come; a signal ends the wait early.
fn wait(fds: &mut [PollFd<'_>], until: Option<Instant>) -> Result<(), Fault> {
    // Beyond what the type holds is for ever.
    let timeout = until.and_then(|until| Timespec::try_from(until.saturating_duration_since(Instant::now())).ok());
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(Fault::Io(error.into())),
    }
}
