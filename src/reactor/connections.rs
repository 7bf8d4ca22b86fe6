//! Connections in the loop: accepted, served, flushed, freed, and ended by their deadlines.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Token};

use super::conn::{Conn, Filled, Flushed};
use super::{Exit, Reactor, ReactorError, STATUS_TIME, Slot, TICK};
use crate::hub::effects::{Effect, Expiry, Input};
use crate::hub::throttle::Network;
use crate::session::ConnId;

/// Reads of one connection in one turn, of at most 4 KiB each (what rustls takes), before the others have
/// theirs.
const READ_BUDGET: usize = 16;
/// Reads of all connections in one turn that find more than they take: 2 MiB, which cost some 2 ms. Lines of people
/// do not count, so that a crowd is served in one turn; who transfers files shares these with others that do.
const TURN_READS: usize = 512;
/// Connections accepted in one turn, for the same reason; each may cost a handshake.
const ACCEPT_BUDGET: usize = 64;
/// Connections in the middle of their handshake. A handshake holds some 20 KiB; this many strangers cost
/// less than 100 MiB, and each is gone after `handshake_seconds`.
const HALF_OPEN_MAX: usize = 4096;
/// How long a closing connection may take to read its last bytes.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// How long what a closed connection still sends is dropped, so that no reset overtakes the last bytes.
const LINGER: Duration = Duration::from_secs(1);
/// How long accepting rests where descriptors or memory have run out.
const ACCEPT_REST: Duration = Duration::from_millis(200);

impl Reactor {
    pub(super) fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        live(&mut self.slots, id)
    }

    /// The connection, to be flushed at the end of the turn.
    pub(super) fn writable(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.make_dirty(id);
        self.open_conn(id)
    }

    /// The connection, unless its handshake is under way or it is closing.
    pub(super) fn open_conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conn_mut(id).filter(|conn| conn.is_open())
    }

    pub(super) fn make_dirty(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id)
            && !std::mem::replace(&mut conn.dirty, true)
        {
            self.dirty.push_back(id);
        }
    }

    pub(super) fn make_ready(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id)
            && !std::mem::replace(&mut conn.ready, true)
        {
            self.ready.push(id);
        }
    }

    pub(super) fn arm(&mut self, id: ConnId) {
        let Reactor { slots, timers, .. } = self;
        if let Some(conn) = live(slots, id) {
            timers.arm(id, conn.deadlines.next(), &mut conn.deadlines.armed);
        }
    }

    pub(super) fn accept(&mut self) {
        if self.accept_again.is_some_and(|at| at > self.now.monotonic) {
            return;
        }
        self.accept_again = None;
        let mut budget = ACCEPT_BUDGET;
        for number in 0..self.listeners.len() {
            while budget > 0 {
                let Some(listener) = self.listeners.get_mut(number).filter(|listener| listener.pending) else { break };
                budget -= 1;
                match listener.socket.accept() {
                    Ok((socket, from)) => self.accepted(socket, from.ip().to_canonical()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.pending = false,
                    // The client went away in between, or a signal came.
                    Err(error) if is_transient(&error) => {}
                    Err(error) => {
                        // The edge is spent and no other comes while clients wait: try again by the clock.
                        log::error!("cannot accept connections for now: {error}");
                        self.accept_again = Some(self.now.monotonic + ACCEPT_REST);
                        return;
                    }
                }
            }
        }
    }

    pub(super) fn accepted(&mut self, mut socket: TcpStream, address: IpAddr) {
        let network = Network::of(address);
        let from_there = self.by_network.get(&network).copied().unwrap_or(0);
        let refusal = if self.blocks.iter().any(|block| block.contains(address)) {
            Some("the address is banned")
        } else if self.open >= self.limits.connections {
            Some("limits.connections is reached")
        } else if from_there >= self.limits.connections_per_address {
            Some("limits.connections_per_address is reached")
        } else if self.half_open >= HALF_OPEN_MAX {
            Some("too many handshakes at once")
        } else {
            None
        };
        if let Some(why) = refusal {
            log::debug!("connection from {address} refused: {why}");
            return;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, conn: None });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let Some(place) = self.slots.get_mut(slot as usize) else { return };
        let id = ConnId { slot, generation: place.generation };
        // Both directions are registered once: edges come only when something changes, and a flush that
        // was not blocked needs none.
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut socket, token(id), interest);
        if let Err(error) = registered.and_then(|()| socket.set_nodelay(true)) {
            log::debug!("connection from {address} lost: {error}");
            self.free.push(slot);
            return;
        }
        let mut conn = Conn::new(id, socket, address);
        conn.deadlines.handshake = self.limits.handshake.map(|limit| self.now.monotonic + limit);
        place.conn = Some(Box::new(conn));
        self.open += 1;
        self.half_open += 1;
        *self.by_network.entry(network).or_default() += 1;
        self.arm(id);
        self.make_ready(id);
    }

    pub(super) fn socket_event(&mut self, token: Token, event: &mio::event::Event) {
        let id = conn_id(token);
        let Some(conn) = self.conn_mut(id) else { return };
        if event.is_error() || (event.is_read_closed() && event.is_write_closed()) {
            // Nobody is there any more; what came before that may still be read.
            conn.readable = true;
            conn.end_is_near = true;
            self.make_ready(id);
            return;
        }
        if event.is_readable() {
            conn.readable = true;
            conn.end_is_near |= event.is_read_closed();
            self.make_ready(id);
        }
        if event.is_writable() && self.conn_mut(id).is_some_and(|conn| conn.has_output()) {
            self.make_dirty(id);
        }
    }

    /// Serves the connections that are ready, as far as a turn goes. Whoever had none comes first in the next.
    pub(super) fn serve_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.ready).into_iter();
        let mut reads = 0;
        while reads < TURN_READS
            && let Some(id) = ready.next()
        {
            reads += self.serve(id);
        }
        let mut rest: Vec<ConnId> = ready.collect();
        rest.append(&mut self.ready);
        self.ready = rest;
    }

    /// Feeds a connection's lines and reads more, within its budget. Answers how many reads found more than they
    /// took.
    pub(super) fn serve(&mut self, id: ConnId) -> usize {
        let Some(conn) = self.conn_mut(id) else { return 0 };
        conn.ready = false;
        let mut budget = READ_BUDGET;
        let mut full = 0;
        let mut exhausted;
        loop {
            exhausted = self.feed(id);
            let has_room = self.store.has_room();
            let takes_line = self.core.takes_line(id);
            let Reactor { slots, tls, scratch, .. } = self;
            let Some(conn) = live(slots, id) else { return full };
            if !conn.readable || conn.ended {
                break;
            }
            // Lines that cannot be taken now are left to the sender's side of the network.
            if conn.is_open() && (!takes_line || !has_room) {
                break; // `feed` has seen to it that it is served again
            }
            if budget == 0 {
                self.make_ready(id);
                break;
            }
            budget -= 1;
            match conn.fill(tls, scratch) {
                Filled::More => full += 1,
                Filled::Drained => {
                    exhausted = self.feed(id);
                    break;
                }
                Filled::Opened => self.opened(id),
                Filled::Broken => {
                    self.broken(id);
                    return full;
                }
            }
        }
        if exhausted {
            self.told_of_end(id);
        }
        // A handshake answers, tickets and alerts go out, whatever the core does.
        if self.conn_mut(id).is_some_and(|conn| conn.has_output()) {
            self.make_dirty(id);
        }
        full
    }

    pub(super) fn opened(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.deadlines.handshake = None;
        let Some(peer) = conn.peer() else { return };
        log::info!("connection {id}: from {} with TLS {}", peer.address, peer.tls);
        self.half_open -= 1;
        self.handle(Input::Opened(id, peer));
        self.execute();
    }

    /// Gives the core the lines that it takes. Answers whether there are no more.
    pub(super) fn feed(&mut self, id: ConnId) -> bool {
        let Reactor { slots, core, effects, now, store, limits, .. } = self;
        let Some(conn) = live(slots, id).filter(|conn| conn.is_open()) else { return true };
        let (mut exhausted, mut took) = (false, false);
        while core.takes_line(id) && store.has_room() {
            let Some(line) = conn.lines.next_line() else {
                exhausted = true;
                break;
            };
            took = true;
            core.handle(Input::Line(id, line), *now, effects);
            // A limit that has changed holds for the next line.
            if let Some(Effect::MaxLine(..)) = effects.last() {
                break;
            }
        }
        // The time of an unfinished line runs from when it was begun; lines that wait for us have none.
        let unfinished = exhausted && conn.lines.is_inside_line() && !conn.ended;
        conn.deadlines.line = match (unfinished, conn.deadlines.line) {
            (false, _) => None,
            // Lines were finished meanwhile: this one has only begun.
            (true, running @ Some(_)) if !took => running,
            (true, _) => limits.line.map(|limit| now.monotonic + limit),
        };
        self.execute();
        self.arm(id);
        // A new limit, or a full store: no event of the socket comes for lines that wait here.
        if !exhausted && self.core.takes_line(id) {
            self.make_ready(id);
        }
        exhausted
    }

    /// Tells the core that no line will come any more. What is left without an ending is no line.
    pub(super) fn told_of_end(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.ended && conn.is_open() && !std::mem::replace(&mut conn.ended_told, true) {
            self.handle(Input::Ended(id));
            self.execute();
        }
    }

    pub(super) fn broken(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.is_strange() {
            // An alert may be on its way; a reset would overtake it.
            self.close(id, false);
        } else {
            self.free(id);
        }
    }

    /// Begins to close: what is queued goes out, then the end of the stream.
    pub(super) fn close(&mut self, id: ConnId, tls_end: bool) {
        let now = self.now.monotonic;
        let Some(conn) = self.conn_mut(id).filter(|conn| !conn.is_closing()) else { return };
        let strange = conn.is_strange();
        conn.close(tls_end);
        let old = std::mem::take(&mut conn.deadlines);
        conn.deadlines.armed = old.armed;
        conn.deadlines.close = Some(now + CLOSE_TIME);
        if strange {
            self.half_open -= 1;
        }
        self.arm(id);
        self.make_dirty(id);
    }

    pub(super) fn free(&mut self, id: ConnId) {
        let Some(slot) = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation) else {
            return;
        };
        let Some(mut conn) = slot.conn.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        if let Err(error) = self.poll.registry().deregister(conn.socket()) {
            log::debug!("connection {id}: {error}");
        }
        self.open -= 1;
        if conn.is_strange() {
            self.half_open -= 1;
        }
        let network = Network::of(conn.address);
        if let Some(count) = self.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
        log::debug!("connection {id}: gone");
        self.handle(Input::Closed(id));
        self.execute();
    }

    // ---- deadlines ---------------------------------------------------------------------------------

    pub(super) fn deadlines(&mut self) {
        let now = self.now.monotonic;
        while let Some((id, at)) = self.timers.due(now) {
            let Some(conn) = self.conn_mut(id) else { continue };
            if conn.deadlines.armed != Some(at) {
                continue; // it stands in the queue for another time
            }
            conn.deadlines.armed = None;
            self.expire(id, now);
            self.arm(id);
        }
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.handle(Input::Tick);
        }
        if self.status_at <= now {
            self.status_at = now + STATUS_TIME;
            let online = self.core.hub().online_count();
            self.service.status(&format!("{} connections, {online} people online", self.open));
        }
        if self.watchdog_at.is_some_and(|at| at <= now) {
            self.watchdog_at = self.service.watchdog_interval().map(|interval| now + interval);
            self.service.watchdog();
        }
        self.execute();
        if self.ending.is_some() && (self.open == 0 && !self.store.is_busy()) {
            self.stop = Some(Exit::Graceful);
        } else if self.ending.is_some_and(|at| at <= now) {
            log::warn!("{} connections did not end in time", self.open);
            self.stop = Some(if self.store.is_busy() { Exit::AtOnce } else { Exit::Graceful });
        }
    }

    pub(super) fn expire(&mut self, id: ConnId, now: Instant) {
        let Some(conn) = self.conn_mut(id) else { return };
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if due(&mut conn.deadlines.close) {
            return self.free(id);
        }
        if due(&mut conn.deadlines.handshake) {
            log::debug!("connection {id}: no handshake in time");
            return self.close(id, false);
        }
        let expiries = [
            (due(&mut conn.deadlines.session), Expiry::Session),
            (due(&mut conn.deadlines.line), Expiry::Line),
            (due(&mut conn.deadlines.stalled), Expiry::Stalled),
        ];
        for (is_due, expiry) in expiries {
            if is_due {
                self.handle(Input::Expired(id, expiry));
            }
        }
        self.execute();
    }

    // ---- out ---------------------------------------------------------------------------------------

    /// Flushes every connection that got something, once. A large room takes longer than a commit: answers
    /// that come meanwhile are taken at once, so that who was not flushed yet gets them in the same record.
    /// Who was, who has more than goes out in a turn, and what a flush itself brought, has the next turn, behind
    /// what came from the network.
    pub(super) fn flush(&mut self) -> Result<(), ReactorError> {
        for _ in 0..self.dirty.len() {
            let Some(id) = self.dirty.pop_front() else { break };
            self.flush_one(id);
            if self.store.has_news() {
                self.take_answers()?;
            }
        }
        self.execute();
        Ok(())
    }

    pub(super) fn flush_one(&mut self, id: ConnId) {
        let Reactor { slots, gather, .. } = self;
        let Some(conn) = live(slots, id) else { return };
        conn.dirty = false;
        let before = conn.flushed;
        let Flushed { progress, more } = match conn.flush(gather) {
            Ok(flushed) => flushed,
            Err(error) => {
                log::debug!("connection {id}: {error}");
                return self.free(id);
            }
        };
        let (flushed, waits) = (conn.flushed, conn.has_output());
        if more {
            self.make_dirty(id);
        }
        let Reactor { slots, now, limits, .. } = self;
        let Some(conn) = live(slots, id) else { return };
        if conn.is_closing() {
            if !waits && conn.finish() {
                if conn.ended {
                    return self.free(id); // the other side ended first: nothing is under way
                }
                conn.deadlines.close = Some(now.monotonic + LINGER);
                self.arm(id);
                self.make_ready(id);
            }
            return;
        }
        let stalled = match (waits, progress, conn.deadlines.stalled) {
            (false, ..) => None,
            (true, false, running @ Some(_)) => running,
            (true, ..) => limits.stalled.map(|limit| now.monotonic + limit),
        };
        conn.deadlines.stalled = stalled;
        if stalled.is_some() {
            self.arm(id);
        }
        if flushed != before {
            let took = self.core.takes_line(id);
            self.handle(Input::Flushed(id, flushed));
            if !took && self.core.takes_line(id) {
                self.make_ready(id);
            }
        }
    }
}

/// The connection of this name, unless it is gone; also where the slot is another's by now.
fn live(slots: &mut [Slot], id: ConnId) -> Option<&mut Conn> {
    let slot = slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
    slot.conn.as_deref_mut()
}

/// The token of a connection: its generation above its slot, so that an event for one that is gone in the
/// same turn finds nobody.
fn token(id: ConnId) -> Token {
    Token((id.generation as usize) << 32 | id.slot as usize)
}

fn conn_id(Token(token): Token) -> ConnId {
    let low = |bits: usize| u32::try_from(bits & 0xffff_ffff).unwrap_or(u32::MAX);
    ConnId { slot: low(token), generation: low(token >> 32) }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
