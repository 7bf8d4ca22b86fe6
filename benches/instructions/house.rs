//! The server without a network and a disk: the core, the store's engine in memory, and connections that
//! take everything at once. Deterministic.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use downstream::commands::Core;
use downstream::hub::effects::{Effect, Input, Now};
use downstream::hub::settings::{Registration, Settings};
use downstream::ops::{Done, FileLimits, HashDone, Op, Ticket, Verifier};
use downstream::protocol::Timestamp;
use downstream::session::{ConnId, Peer};
use downstream::store::{Engine, ServerKey};

use crate::Failure;

/// See the module.
pub(crate) struct House {
    core: Core,
    engine: Engine,
    now: Now,
    effects: Vec<Effect>,
    /// Writes of the batch that is gathered.
    batch: Vec<(Ticket, Op)>,
    /// Bytes given to each connection, by its slot.
    sent: Vec<u64>,
    generations: Vec<u32>,
    dirty: Vec<ConnId>,
    /// What connections were told, while that is wanted.
    heard: Option<String>,
    /// Bytes that were given to connections.
    pub(crate) bytes: u64,
    /// Replies that began with `OK`.
    pub(crate) agreed: u64,
}

/// The same key in every run: it decides where a sealed name lies in an index.
fn fixed_key() -> Result<ServerKey, Failure> {
    let dir = tempfile::tempdir()?;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(dir.path().join("server.key"))?;
    file.write_all(&[7; 32])?;
    Ok(ServerKey::load_or_create(dir.path(), None)?)
}

impl House {
    pub(crate) fn new() -> Result<House, Failure> {
        let settings = Settings {
            server_name: "bench".to_owned(),
            registration: Registration::Open,
            sessions_per_account: 4,
            messages_per_second: 0,
            message_burst: 30,
            logins_per_minute: 0,
            registrations_per_hour: 0,
            login_timeout: Some(Duration::from_secs(120)),
            idle_timeout: None,
            outbound_bytes: 1 << 20,
            retention_days: None,
            max_file: 0,
            file_limits: FileLimits { quota: None, total: None },
            partial_hours: None,
            file_days: None,
        };
        let now = Now { monotonic: Instant::now(), wall: Timestamp::from_millis(1_700_000_000_000) };
        let mut drawn: u64 = 0;
        let random = Box::new(move |bytes: &mut [u8]| {
            for part in bytes.chunks_mut(8) {
                // SplitMix64: tokens need to differ, no more.
                drawn = drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = drawn;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                let z = (z ^ (z >> 31)).to_le_bytes();
                part.iter_mut().zip(z).for_each(|(place, byte)| *place = byte);
            }
            Ok(())
        });
        let key = fixed_key()?;
        Ok(House {
            core: Core::new(settings, Vec::new(), random, now),
            engine: Engine::in_memory(&key)?,
            now,
            effects: Vec::new(),
            batch: Vec::new(),
            sent: Vec::new(),
            generations: Vec::new(),
            dirty: Vec::new(),
            heard: None,
            bytes: 0,
            agreed: 0,
        })
    }

    fn handle(&mut self, input: Input<'_>) {
        self.core.handle(input, self.now, &mut self.effects);
    }

    pub(crate) fn connect(&mut self, slot: u32) -> Result<ConnId, Failure> {
        let place = slot as usize;
        if place >= self.sent.len() {
            self.sent.resize(place + 1, 0);
            self.generations.resize(place + 1, 0);
        }
        self.sent[place] = 0;
        let conn = ConnId { slot, generation: self.generations[place] };
        let peer = Peer { address: IpAddr::from(Ipv4Addr::LOCALHOST), tls: "1.3", certificate: None };
        self.handle(Input::Opened(conn, peer));
        self.turn()?;
        Ok(conn)
    }

    pub(crate) fn close(&mut self, conn: ConnId) -> Result<(), Failure> {
        self.generations[conn.slot as usize] += 1;
        self.handle(Input::Closed(conn));
        self.turn()
    }

    /// Gives a line to the core; [`House::turn`] does what follows.
    pub(crate) fn line(&mut self, conn: ConnId, line: &str) -> Result<(), Failure> {
        if !self.core.takes_line(conn) {
            return Err(format!("{conn} takes no line").into());
        }
        self.handle(Input::Line(conn, Ok(line)));
        self.execute();
        Ok(())
    }

    /// What a connection is told in answer to a line, in the set-up.
    pub(crate) fn ask(&mut self, conn: ConnId, line: &str) -> Result<String, Failure> {
        self.heard = Some(String::new());
        self.line(conn, line)?;
        self.turn()?;
        let heard = self.heard.take().unwrap_or_default();
        match heard.lines().find(|line| line.starts_with("OK") || line.starts_with("ERR")) {
            Some(reply) if reply.starts_with("OK") => Ok(reply.to_owned()),
            other => Err(format!("{line}: {}", other.unwrap_or("no reply")).into()),
        }
    }

    /// What the loop does in a turn, until nothing is left: commits the batch, takes the answers, flushes.
    pub(crate) fn turn(&mut self) -> Result<(), Failure> {
        loop {
            self.execute();
            if !self.batch.is_empty() {
                self.engine.begin()?;
                let batch = std::mem::take(&mut self.batch);
                let done: Vec<(Ticket, Done)> = batch
                    .into_iter()
                    .map(|(ticket, op)| (ticket, Done::Op(self.engine.apply(self.now.wall, &op))))
                    .collect();
                self.engine.commit()?;
                done.into_iter().for_each(|(ticket, done)| self.handle(Input::Stored(ticket, done)));
                continue;
            }
            if self.dirty.is_empty() {
                return Ok(());
            }
            for conn in std::mem::take(&mut self.dirty) {
                let sent = self.sent[conn.slot as usize];
                self.handle(Input::Flushed(conn, sent));
            }
        }
    }

    fn execute(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Send(conn, bytes) => {
                        self.agreed += u64::from(bytes.starts_with(b"OK "));
                        self.give(conn, &bytes);
                    }
                    Effect::Fanout(conns, lines) => conns.into_iter().for_each(|conn| self.give(conn, &lines)),
                    Effect::Persist(ticket, op) => self.batch.push((ticket, op)),
                    Effect::Ask(ticket, query) => {
                        let done = Done::Query(self.engine.answer(&query));
                        self.handle(Input::Stored(ticket, done));
                    }
                    Effect::Hash(ticket, _) => {
                        let (salt, hash) = ([1; 16], [2; 32]);
                        let made = Verifier { memory_kib: 8192, iterations: 1, parallelism: 1, salt, hash };
                        self.handle(Input::Hashed(ticket, HashDone::Created(made)));
                    }
                    _ => {}
                }
            }
        }
    }

    fn give(&mut self, conn: ConnId, bytes: &[u8]) {
        let sent = &mut self.sent[conn.slot as usize];
        *sent += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        if self.dirty.last() != Some(&conn) {
            self.dirty.push(conn);
        }
        if let Some(heard) = &mut self.heard {
            heard.push_str(&String::from_utf8_lossy(bytes));
        }
    }
}
