//! The loop: sockets, TLS, timers, signals; executes what the core wants and is the only reader of the
//! clock.
//!
//! The order of one turn is the design: wait → read the clock once → take the answers of the store and
//! the hasher → read the sockets, each within a budget, and feed their lines → deadlines → flush every
//! connection that got something, once, so that all it got in this turn leaves in one TLS record and one
//! write, with the answers that come while others are flushed → free what is gone.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

mod conn;
mod connections;
mod control;
mod gathering;
mod timers;

use crate::commands::{Core, RandomFailed};
use crate::config::{Config, Limits};
use crate::hasher::Hasher;
use crate::hub::effects::{Effect, Gauges, Input, Now};
use crate::hub::throttle::Network;
use crate::ops::{AddressBlock, HashDone, Op, Ticket};
use crate::protocol::Timestamp;
use crate::service::Service;
use crate::session::ConnId;
use crate::store::{Database, News, ServerKey, Store, StoreError};
use crate::tls::Tls;
use conn::{Conn, RECORD, SharedTls};
use gathering::{GATHER_TIME, Gathering};
use timers::Timers;

/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;
/// How often the core looks after what nobody asks for.
const TICK: Duration = Duration::from_secs(10);
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
    /// Writes among them, for the store: together, so that lines which came together are committed together.
    writes: Vec<(Ticket, Op)>,
    store: Store,
    hasher: Hasher,
    timers: Timers,
    /// Connections whose bytes or lines wait, with no event to come.
    ready: Vec<ConnId>,
    /// Connections to be flushed, the longest waiting first.
    dirty: VecDeque<ConnId>,
    gathering: Gathering,
    scratch: Vec<u8>,
    gather: Vec<u8>,
    now: Now,
    started: Instant,
    tick_at: Instant,
    status_at: Instant,
    watchdog_at: Option<Instant>,
    /// An administrator ended the server in this turn.
    end_wanted: bool,
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
            writes: Vec::new(),
            store,
            hasher,
            timers: Timers::default(),
            ready: Vec::new(),
            dirty: VecDeque::new(),
            gathering: Gathering::default(),
            scratch: vec![0; RECORD],
            gather: Vec::new(),
            now,
            started: now.monotonic,
            tick_at: now.monotonic + TICK,
            status_at: now.monotonic + STATUS_TIME,
            end_wanted: false,
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
        self.serve_ready();
        if std::mem::take(&mut self.end_wanted) {
            self.shut_down();
        }
        self.deadlines();
        if self.gathering.until().is_some_and(|until| until <= self.now.monotonic) {
            self.release();
        }
        self.flush()
    }

    fn timeout(&self) -> Option<Duration> {
        let may_accept = self.accept_again.is_none() && self.listeners.iter().any(|listener| listener.pending);
        let at_once = self.stop.is_some() || self.end_wanted || !self.dirty.is_empty();
        if at_once || (self.store.has_room() && (!self.ready.is_empty() || may_accept)) {
            return Some(Duration::ZERO);
        }
        let now = self.now.monotonic;
        let gathered = self.gathering.until();
        let at = [Some(self.tick_at), Some(self.status_at), self.watchdog_at, self.accept_again, self.ending, gathered];
        let next = at.into_iter().flatten().min().map(|at| at.saturating_duration_since(now));
        [next, self.timers.wait(now)].into_iter().flatten().min()
    }

    // ---- the core ----------------------------------------------------------------------------------

    fn handle(&mut self, input: Input<'_>) {
        self.core.handle(input, self.now, &mut self.effects);
    }

    fn take_answers(&mut self) -> Result<(), ReactorError> {
        let Reactor { store, hasher, core, effects, now, .. } = self;
        let committed = store.drain(|news| match news {
            News::Answer(ticket, done) => core.handle(Input::Stored(ticket, done), *now, effects),
            News::Outside(change) => core.handle(Input::Outside(change), *now, effects),
        });
        hasher.drain(|ticket, done| core.handle(Input::Hashed(ticket, done), *now, effects));
        if committed {
            self.release(); // it was waited for, and what it brings joins what waits
        }
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
        if !self.writes.is_empty() {
            self.store.submit_all(self.now.wall, self.writes.drain(..));
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
                let waits = Gathering::is_worth(ids.len()) && self.store.commits_within(GATHER_TIME);
                for &id in &ids {
                    let conn = if waits { self.open_conn(id) } else { self.writable(id) };
                    if let Some(conn) = conn {
                        conn.queue_shared(lines.clone());
                    }
                }
                if waits {
                    self.gathering.wait(ids, self.now.monotonic);
                }
            }
            Effect::Persist(ticket, op) => self.writes.push((ticket, op)),
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
            // Not here: the replies of this turn come first.
            Effect::ShutDown => self.end_wanted = true,
        }
    }

    /// Those who waited for others are written to at the end of this turn.
    fn release(&mut self) {
        for id in self.gathering.release() {
            self.make_dirty(id);
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
}

/// Resident memory of the process in bytes (proc(5), `statm`); 0 where it cannot be read.
fn resident_memory() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident: u64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    resident * rustix::param::page_size() as u64
}
