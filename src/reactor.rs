//! The loop: sockets, TLS, timers, signals; executes what the core wants and is the only reader of the
//! clock.
//!
//! The order of one turn is the design: wait → read the clock once → take the answers of the store and
//! the hasher → read the sockets, each within a budget, and feed their lines → deadlines → flush every
//! connection that got something, once, so that all it got in this turn leaves in one TLS record and one
//! write → free what is gone.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

mod conn;
mod timers;

use crate::commands::{Core, RandomFailed};
use crate::config::{Config, Limits};
use crate::hasher::Hasher;
use crate::hub::effects::{Effect, Expiry, Gauges, Input, Now};
use crate::hub::throttle::Network;
use crate::ops::{AddressBlock, HashDone, Ticket};
use crate::protocol::Timestamp;
use crate::service::Service;
use crate::session::ConnId;
use crate::store::{Database, News, ServerKey, Store, StoreError};
use crate::tls::Tls;
use conn::{Conn, Filled, RECORD, SharedTls};
use timers::Timers;

/// Reads of one connection in one turn, of at most 4 KiB each (what rustls takes), before the others have
/// theirs.
const READ_BUDGET: usize = 16;
/// Connections accepted in one turn, for the same reason; each may cost a handshake.
const ACCEPT_BUDGET: usize = 64;
/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;
/// Connections in the middle of their handshake. A handshake holds some 20 KiB; this many strangers cost
/// less than 100 MiB, and each is gone after `handshake_seconds`.
const HALF_OPEN_MAX: usize = 4096;
/// How long a closing connection may take to read its last bytes.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// How long what a closed connection still sends is dropped, so that no reset overtakes the last bytes.
const LINGER: Duration = Duration::from_secs(1);
/// How long accepting rests where descriptors or memory have run out.
const ACCEPT_REST: Duration = Duration::from_millis(200);
/// How often old things are looked for.
const TICK: Duration = Duration::from_secs(600);
/// How often `systemctl status` is told the figures.
const STATUS_TIME: Duration = Duration::from_secs(10);
/// How long a graceful end may take; below the 10 s that it is promised in.
const SHUTDOWN_TIME: Duration = Duration::from_secs(8);

const WAKE: Token = Token(usize::MAX);
const SIGNALS: Token = Token(usize::MAX - 1);
/// Listeners have the tokens below, the first the highest.
const LISTENERS: usize = usize::MAX - 2;
/// The most of them; a configuration has a handful.
const LISTENERS_MAX: usize = 64;

/// Reads the configuration and the certificates anew.
pub type Reload = Box<dyn FnMut(&Config) -> Result<(Config, Tls), String>>;

/// Everything that the loop starts from.
pub struct Setup {
    /// What was configured.
    pub config: Config,
    /// What handshakes begin with.
    pub tls: Tls,
    /// The opened database.
    pub database: Database,
    /// Its key, for the hasher's secret.
    pub key: ServerKey,
    /// Sockets that listen already.
    pub listeners: Vec<std::net::TcpListener>,
    /// The link to systemd.
    pub service: Service,
    /// For SIGHUP.
    pub reload: Reload,
}

/// Why the loop cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReactorError {
    /// The operating system refuses what a loop needs.
    #[error("the event loop cannot run: {0}")]
    Io(#[from] io::Error),
    /// The store cannot start or has died.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// More sockets than tokens.
    #[error("at most {LISTENERS_MAX} addresses can be listened on")]
    TooManyListeners,
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything accepted was committed and answered.
    Graceful,
    /// A second signal came, or time ran out: what was acknowledged is stored, the rest is lost.
    AtOnce,
}

struct Listener {
    socket: TcpListener,
    /// An edge was seen and not used up.
    pending: bool,
}

struct Slot {
    generation: u32,
    conn: Option<Box<Conn>>,
}

/// See the module.
pub struct Reactor {
    poll: Poll,
    signals: Signals,
    listeners: Vec<Listener>,
    accept_again: Option<Instant>,
    tls: SharedTls,
    config: Config,
    limits: Limits,
    reload: Reload,
    service: Service,
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
    half_open: usize,
    by_network: HashMap<Network, usize>,
    blocks: Vec<AddressBlock>,
    core: Core,
    effects: Vec<Effect>,
    store: Store,
    hasher: Hasher,
    timers: Timers,
    /// Connections whose bytes or lines wait, with no event to come.
    ready: Vec<ConnId>,
    dirty: Vec<ConnId>,
    scratch: Vec<u8>,
    gather: Vec<u8>,
    now: Now,
    started: Instant,
    tick_at: Instant,
    status_at: Instant,
    watchdog_at: Option<Instant>,
    ending: Option<Instant>,
    stop: Option<Exit>,
}

fn clock() -> Now {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    Now { monotonic: Instant::now(), wall: Timestamp::from_millis(ms) }
}

impl Reactor {
    /// Takes everything over and is ready for clients.
    ///
    /// # Errors
    /// What the operating system or the store refuses.
    pub fn new(setup: Setup) -> Result<Reactor, ReactorError> {
        let Setup { config, tls, database, key, listeners, service, reload } = setup;
        if listeners.len() > LISTENERS_MAX {
            return Err(ReactorError::TooManyListeners);
        }
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let wake = move || {
            if let Err(error) = waker.wake() {
                log::error!("the loop cannot be woken: {error}");
            }
        };
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let mut sockets = Vec::new();
        for (number, socket) in listeners.into_iter().enumerate() {
            let mut socket = TcpListener::from_std(socket);
            poll.registry().register(&mut socket, Token(LISTENERS - number), Interest::READABLE)?;
            sockets.push(Listener { socket, pending: true });
        }
        let secret = key.password_secret();
        let (store, loaded) = database.start(Arc::new(wake.clone()))?;
        let hasher = Hasher::start(crate::hasher::default_threads(), config.argon2(), secret, wake)?;
        let now = clock();
        let random = Box::new(|bytes: &mut [u8]| getrandom::fill(bytes).map_err(|_| RandomFailed));
        let core = Core::new(config.settings(), loaded.address_bans.clone(), random, now);
        Ok(Reactor {
            poll,
            signals,
            listeners: sockets,
            accept_again: None,
            tls: Arc::new(tls),
            limits: config.limits(),
            config,
            reload,
            watchdog_at: service.watchdog_interval().map(|interval| now.monotonic + interval),
            service,
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            half_open: 0,
            by_network: HashMap::new(),
            blocks: loaded.address_bans,
            core,
            effects: Vec::new(),
            store,
            hasher,
            timers: Timers::default(),
            ready: Vec::new(),
            dirty: Vec::new(),
            scratch: vec![0; RECORD],
            gather: Vec::new(),
            now,
            started: now.monotonic,
            tick_at: now.monotonic + TICK,
            status_at: now.monotonic + STATUS_TIME,
            ending: None,
            stop: None,
        })
    }

    /// The addresses that clients can connect to.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.socket.local_addr().ok()).collect()
    }

    /// Turns until the end.
    ///
    /// # Errors
    /// The loop or the store cannot go on. What was acknowledged is stored.
    pub fn run(mut self) -> Result<Exit, ReactorError> {
        self.service.ready("accepting connections");
        let mut events = Events::with_capacity(EVENTS);
        let exit = loop {
            self.turn(&mut events)?;
            if let Some(exit) = self.stop {
                break exit;
            }
        };
        self.store.shutdown(|_| {})?;
        Ok(exit)
    }

    fn turn(&mut self, events: &mut Events) -> Result<(), ReactorError> {
        match self.poll.poll(events, self.timeout()) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        self.now = clock();
        self.take_answers()?;
        for event in events.iter() {
            match event.token() {
                WAKE => {}
                SIGNALS => self.signals(),
                Token(token) if token > LISTENERS - LISTENERS_MAX => {
                    if let Some(listener) = self.listeners.get_mut(LISTENERS - token) {
                        listener.pending = true;
                    }
                }
                token => self.socket_event(token, event),
            }
        }
        self.accept();
        for id in std::mem::take(&mut self.ready) {
            self.serve(id);
        }
        self.deadlines();
        self.flush();
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        let may_accept = self.accept_again.is_none() && self.listeners.iter().any(|listener| listener.pending);
        if self.stop.is_some() || (self.store.has_room() && (!self.ready.is_empty() || may_accept)) {
            return Some(Duration::ZERO);
        }
        let now = self.now.monotonic;
        let at = [Some(self.tick_at), Some(self.status_at), self.watchdog_at, self.accept_again, self.ending];
        let next = at.into_iter().flatten().min().map(|at| at.saturating_duration_since(now));
        [next, self.timers.wait(now)].into_iter().flatten().min()
    }

    // ---- the core ----------------------------------------------------------------------------------

    fn handle(&mut self, input: Input<'_>) {
        self.core.handle(input, self.now, &mut self.effects);
    }

    fn take_answers(&mut self) -> Result<(), ReactorError> {
        let Reactor { store, hasher, core, effects, now, .. } = self;
        store.drain(|news| match news {
            News::Answer(ticket, done) => core.handle(Input::Stored(ticket, done), *now, effects),
            News::Outside(change) => core.handle(Input::Outside(change), *now, effects),
        });
        hasher.drain(|ticket, done| core.handle(Input::Hashed(ticket, done), *now, effects));
        self.execute();
        if self.store.is_running() { Ok(()) } else { Err(StoreError::Died.into()) }
    }

    /// Does what the core wants, until it wants nothing more.
    fn execute(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                self.execute_one(effect);
            }
        }
    }

    fn execute_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send(id, bytes) => {
                if let Some(conn) = self.writable(id) {
                    conn.queue(bytes);
                }
            }
            Effect::Fanout(ids, lines) => {
                for id in ids {
                    if let Some(conn) = self.writable(id) {
                        conn.queue_shared(lines.clone());
                    }
                }
            }
            Effect::Persist(ticket, op) => self.store.submit(ticket, self.now.wall, op),
            Effect::Ask(ticket, query) => self.store.ask(ticket, query),
            Effect::Hash(ticket, op) => {
                if self.hasher.try_submit(ticket, op).is_err() {
                    debug_assert!(false, "the core submits no more than the hasher takes");
                    self.handle(Input::Hashed(ticket, HashDone::Failed));
                }
            }
            Effect::Measure(ticket) => self.measure(ticket),
            Effect::Deadline(id, at) => {
                if let Some(conn) = self.conn_mut(id) {
                    conn.deadlines.session = at;
                    self.arm(id);
                }
            }
            Effect::MaxLine(id, bytes) => {
                if let Some(conn) = self.conn_mut(id) {
                    conn.lines.set_limit(bytes);
                }
            }
            Effect::Resume(id) => self.make_ready(id),
            Effect::Close(id) => self.close(id, true),
            Effect::Blocked(blocks) => self.blocks = blocks,
            Effect::ShutDown => self.shut_down(),
        }
    }

    fn measure(&mut self, ticket: Ticket) {
        let stats = self.store.stats();
        let gauges = Gauges {
            uptime: self.now.monotonic.saturating_duration_since(self.started),
            connections: self.open as u64,
            memory: resident_memory(),
            commits: stats.commits,
            committed: stats.ops,
            largest_batch: stats.largest_batch,
            write_queue: stats.waiting_ops,
            read_queue: stats.waiting_queries,
        };
        self.handle(Input::Measured(ticket, gauges));
    }

    // ---- connections -------------------------------------------------------------------------------

    fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        slot.conn.as_deref_mut()
    }

    /// The connection, to be flushed at the end of the turn.
    fn writable(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.make_dirty(id);
        self.conn_mut(id).filter(|conn| conn.is_open())
    }

    fn make_dirty(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id)
            && !std::mem::replace(&mut conn.dirty, true)
        {
            self.dirty.push(id);
        }
    }

    fn make_ready(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id)
            && !std::mem::replace(&mut conn.ready, true)
        {
            self.ready.push(id);
        }
    }

    fn arm(&mut self, id: ConnId) {
        let Reactor { slots, timers, .. } = self;
        if let Some(conn) = slots.get_mut(id.slot as usize).and_then(|slot| slot.conn.as_deref_mut()) {
            timers.arm(id, conn.deadlines.next(), &mut conn.deadlines.armed);
        }
    }

    fn accept(&mut self) {
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

    fn accepted(&mut self, mut socket: TcpStream, address: IpAddr) {
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

    fn socket_event(&mut self, token: Token, event: &mio::event::Event) {
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

    /// Feeds a connection's lines and reads more, within its budget.
    fn serve(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.ready = false;
        let mut budget = READ_BUDGET;
        let mut exhausted;
        loop {
            exhausted = self.feed(id);
            let has_room = self.store.has_room();
            let takes_line = self.core.takes_line(id);
            let Reactor { slots, tls, scratch, .. } = self;
            let Some(conn) = slots.get_mut(id.slot as usize).and_then(|slot| slot.conn.as_deref_mut()) else { return };
            if conn.id != id || !conn.readable || conn.ended {
                break;
            }
            // Lines that cannot be taken now are left to the sender's side of the network.
            if conn.is_open() && (!takes_line || !has_room) {
                if takes_line {
                    self.make_ready(id);
                }
                break;
            }
            if budget == 0 {
                self.make_ready(id);
                break;
            }
            budget -= 1;
            match conn.fill(tls, scratch) {
                Filled::More => {}
                Filled::Drained => {
                    exhausted = self.feed(id);
                    break;
                }
                Filled::Opened => self.opened(id),
                Filled::Broken => return self.broken(id),
            }
        }
        if exhausted {
            self.told_of_end(id);
        }
        // A handshake answers, tickets and alerts go out, whatever the core does.
        if self.conn_mut(id).is_some_and(|conn| conn.has_output()) {
            self.make_dirty(id);
        }
    }

    fn opened(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        conn.deadlines.handshake = None;
        let Some(peer) = conn.peer() else { return };
        log::info!("connection {id}: from {} with TLS {}", peer.address, peer.tls);
        self.half_open -= 1;
        self.handle(Input::Opened(id, peer));
        self.execute();
    }

    /// Gives the core the lines that it takes. Answers whether there are no more.
    fn feed(&mut self, id: ConnId) -> bool {
        let Reactor { slots, core, effects, now, store, limits, .. } = self;
        let Some(conn) = slots.get_mut(id.slot as usize).and_then(|slot| slot.conn.as_deref_mut()) else { return true };
        if conn.id != id || !conn.is_open() {
            return true;
        }
        let mut exhausted = false;
        while core.takes_line(id) && store.has_room() {
            let Some(line) = conn.lines.next_line() else {
                exhausted = true;
                break;
            };
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
            (true, running @ Some(_)) => running,
            (true, None) => limits.line.map(|limit| now.monotonic + limit),
        };
        let again = !exhausted && !effects.is_empty();
        self.execute();
        self.arm(id);
        if again && self.core.takes_line(id) {
            self.make_ready(id);
        }
        exhausted
    }

    /// Tells the core that no line will come any more. What is left without an ending is no line.
    fn told_of_end(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.ended && conn.is_open() && !std::mem::replace(&mut conn.ended_told, true) {
            self.handle(Input::Ended(id));
            self.execute();
        }
    }

    fn broken(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.is_strange() {
            // An alert may be on its way; a reset would overtake it.
            self.close(id, false);
        } else {
            self.free(id);
        }
    }

    /// Begins to close: what is queued goes out, then the end of the stream.
    fn close(&mut self, id: ConnId, tls_end: bool) {
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

    fn free(&mut self, id: ConnId) {
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

    fn deadlines(&mut self) {
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

    fn expire(&mut self, id: ConnId, now: Instant) {
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

    fn flush(&mut self) {
        // What the core sends after a flush is for the same turn: the lists are short by then.
        while !self.dirty.is_empty() {
            for id in std::mem::take(&mut self.dirty) {
                self.flush_one(id);
            }
            self.execute();
        }
    }

    fn flush_one(&mut self, id: ConnId) {
        let Reactor { slots, gather, now, limits, .. } = self;
        let Some(slot) = slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation) else {
            return;
        };
        let Some(conn) = slot.conn.as_deref_mut() else { return };
        conn.dirty = false;
        let before = conn.flushed;
        let progress = match conn.flush(gather) {
            Ok(progress) => progress,
            Err(error) => {
                log::debug!("connection {id}: {error}");
                return self.free(id);
            }
        };
        let (flushed, waits) = (conn.flushed, conn.has_output());
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

    // ---- signals -----------------------------------------------------------------------------------

    fn signals(&mut self) {
        let pending: Vec<i32> = self.signals.pending().collect();
        for signal in pending {
            match signal {
                SIGHUP => self.reload(),
                _ if self.ending.is_some() => {
                    log::warn!("a second signal: ending at once");
                    self.stop = Some(Exit::AtOnce);
                }
                _ => self.shut_down(),
            }
        }
    }

    fn reload(&mut self) {
        self.service.reloading();
        match (self.reload)(&self.config) {
            Ok((config, tls)) => {
                self.hasher.set_params(config.argon2());
                self.limits = config.limits();
                self.tls = Arc::new(tls);
                self.handle(Input::Reloaded(config.settings()));
                self.config = config;
                log::info!("configuration and certificates were read anew");
            }
            Err(why) => log::error!("the old configuration and certificates stay: {why}"),
        }
        self.execute();
        self.service.ready("accepting connections");
    }

    /// Begins the end: no new connections, what has arrived is answered, everybody is told.
    fn shut_down(&mut self) {
        if self.ending.is_some() {
            return;
        }
        log::info!("shutting down");
        self.service.stopping();
        self.ending = Some(self.now.monotonic + SHUTDOWN_TIME);
        self.listeners.clear();
        self.handle(Input::ShuttingDown);
        let open: Vec<ConnId> = self.slots.iter().filter_map(|slot| slot.conn.as_deref()).map(|conn| conn.id).collect();
        for id in open {
            // What has arrived counts as read; nothing more does.
            self.serve(id);
            let Some(conn) = self.conn_mut(id) else { continue };
            if conn.is_strange() {
                self.free(id);
            } else {
                conn.ended = true;
                self.make_ready(id);
            }
        }
    }
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

/// Resident memory of the process in bytes (proc(5), `statm`); 0 where it cannot be read.
fn resident_memory() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident: u64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    resident * rustix::param::page_size() as u64
}
