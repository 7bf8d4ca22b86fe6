//! A relay that ends TLS on both sides and does what a script says: the malicious server, made out of an
//! honest one.
//!
//! Clients connect to it and pin its certificate; it connects on to the daemon. Every line of both
//! directions is captured as it arrived, then given to the script, which lets it pass or does something
//! else with it.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConnection, Connection, ServerConfig, ServerConnection};
use sha2::Digest;

use crate::support::client::{Options, config};
use crate::support::{DEADLINE, client};

/// Which way a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From a client to the daemon.
    Up,
    /// From the daemon to a client.
    Down,
}

/// A line on its way through the relay.
#[derive(Debug, Clone)]
pub(crate) struct Caught {
    /// The connection, counted from 1.
    pub(crate) session: u64,
    /// Whose connection it is; empty before login.
    pub(crate) user: String,
    pub(crate) way: Way,
    /// Without its ending.
    pub(crate) line: String,
}

impl Caught {
    /// The line's first word without a label: `/msg`, `OK`, `-`.
    pub(crate) fn verb(&self) -> &str {
        let first = self.line.split(' ').next().unwrap_or_default();
        first.split('@').next().unwrap_or_default()
    }

    /// The words of the line.
    pub(crate) fn words(&self) -> Vec<&str> {
        self.line.split(' ').collect()
    }

    /// Whether it goes up and is this command.
    pub(crate) fn is_command(&self, verb: &str) -> bool {
        self.way == Way::Up && self.verb() == verb
    }

    /// Whether it goes down and begins so.
    pub(crate) fn is_down(&self, prefix: &str) -> bool {
        self.way == Way::Down && self.line.starts_with(prefix)
    }

    /// The `e2e:` body in it, if it has one.
    pub(crate) fn body(&self) -> Option<&str> {
        let at = self.line.find("e2e:")?;
        self.line.get(at..)
    }

    /// The line with another body.
    pub(crate) fn with_body(&self, body: &str) -> String {
        let old = self.body().unwrap_or_else(|| panic!("no body: {}", self.line));
        self.line.replace(old, body)
    }
}

/// What becomes of a line.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    /// It goes on as it is.
    Pass,
    /// It does not go on.
    Drop,
    /// These go on in its place.
    Instead(Vec<String>),
    /// A command is answered by the relay, in its turn among the others; the daemon never sees it.
    /// `{label}` in a line becomes the label of the command with its `@`, or nothing.
    Answer(Vec<String>),
    /// It is kept back until the test releases it ([`Evil::held`]).
    Hold,
}

type Script = Box<dyn FnMut(&Caught) -> Verdict + Send>;

/// The relay. Ends with all its threads when dropped.
pub(crate) struct Evil {
    address: SocketAddr,
    pin: String,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    script: Mutex<Option<Script>>,
    tls: Arc<ServerConfig>,
}

struct State {
    upstream: SocketAddr,
    stopped: bool,
    /// New connections are closed at once.
    unreachable: bool,
    sessions: BTreeMap<u64, Session>,
    last: u64,
    captured: Vec<Caught>,
    held: Vec<Caught>,
}

struct Session {
    tell: Sender<Happening>,
    user: String,
}

enum Happening {
    Bytes(Way, Vec<u8>),
    End(Way),
    Emit(Way, String),
    Cut,
}

impl Evil {
    /// A relay in front of a daemon, honest until it is told otherwise.
    pub(crate) fn before(upstream: SocketAddr) -> Evil {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = made.cert.der().to_vec();
        let pin: String = sha2::Sha256::digest(&certificate).iter().map(|byte| format!("{byte:02x}")).collect();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(certificate)], key)
            .unwrap();
        let state = State {
            upstream,
            stopped: false,
            unreachable: false,
            sessions: BTreeMap::new(),
            last: 0,
            captured: Vec::new(),
            held: Vec::new(),
        };
        let (state, changed, script) = (Mutex::new(state), Condvar::new(), Mutex::new(None));
        let shared = Arc::new(Shared { state, changed, script, tls: Arc::new(tls) });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Evil { address, pin, shared }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// SHA-256 of its certificate, in hexadecimal.
    pub(crate) fn pin(&self) -> &str {
        &self.pin
    }

    /// From now on every line goes through `script`. It runs on the threads of the connections, one line
    /// at a time.
    pub(crate) fn script(&self, script: impl FnMut(&Caught) -> Verdict + Send + 'static) {
        *self.shared.script.lock().unwrap() = Some(Box::new(script));
    }

    /// From now on every line passes. What was held stays held.
    pub(crate) fn honest(&self) {
        *self.shared.script.lock().unwrap() = None;
    }

    /// Whether new connections are closed at once.
    pub(crate) fn set_unreachable(&self, unreachable: bool) {
        self.state().unreachable = unreachable;
    }

    /// Cuts all connections, as a network does.
    pub(crate) fn cut(&self) {
        self.state().sessions.values().for_each(|session| drop(session.tell.send(Happening::Cut)));
    }

    /// Sends a line of its own to every connection of `user`, or to the daemon in their name. How many
    /// connections that were.
    pub(crate) fn inject(&self, user: &str, way: Way, line: &str) -> usize {
        let state = self.state();
        let of_user = state.sessions.values().filter(|session| session.user == user);
        of_user.filter(|session| session.tell.send(Happening::Emit(way, line.to_owned())).is_ok()).count()
    }

    /// Sends a line that was held, perhaps changed, to where it was going.
    pub(crate) fn release(&self, held: &Caught) {
        if let Some(session) = self.state().sessions.get(&held.session) {
            let _ = session.tell.send(Happening::Emit(held.way, held.line.clone()));
        }
    }

    /// Waits until so many lines are held, and takes them.
    pub(crate) fn wait_held(&self, count: usize) -> Vec<Caught> {
        self.wait_for(&format!("{count} held lines"), |state| {
            (state.held.len() >= count).then(|| std::mem::take(&mut state.held))
        })
    }

    /// Everything that went through so far, as it arrived.
    pub(crate) fn captured(&self) -> Vec<Caught> {
        self.state().captured.clone()
    }

    /// Forgets what went through.
    pub(crate) fn forget(&self) {
        self.state().captured.clear();
    }

    /// Waits for the first line that fits.
    pub(crate) fn wait_line(&self, what: &str, fits: impl Fn(&Caught) -> bool) -> Caught {
        self.wait_for(what, |state| state.captured.iter().find(|caught| fits(caught)).cloned())
    }

    /// Waits until so many lines fit, and gives them.
    pub(crate) fn wait_lines(&self, what: &str, count: usize, fits: impl Fn(&Caught) -> bool) -> Vec<Caught> {
        self.wait_for(what, |state| {
            let found: Vec<Caught> = state.captured.iter().filter(|caught| fits(caught)).cloned().collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// Waits until no connection of `user` is left.
    pub(crate) fn wait_gone(&self, user: &str) {
        self.wait_for(&format!("the end of {user}'s connections"), |state| {
            state.sessions.values().all(|session| session.user != user).then_some(())
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    fn wait_for<T>(&self, what: &str, mut of: impl FnMut(&mut State) -> Option<T>) -> T {
        let begun = Instant::now();
        let mut state = self.state();
        loop {
            if let Some(found) = of(&mut state) {
                return found;
            }
            let left = DEADLINE.saturating_sub(begun.elapsed());
            let (next, timeout) = self.shared.changed.wait_timeout(state, left).unwrap();
            state = next;
            assert!(!timeout.timed_out(), "never happened: {what}\n{}", transcript(&state.captured));
        }
    }
}

impl Drop for Evil {
    fn drop(&mut self) {
        let mut state = self.state();
        state.stopped = true;
        state.sessions.values().for_each(|session| drop(session.tell.send(Happening::Cut)));
        if std::thread::panicking() {
            eprintln!("--- the last lines through the relay:\n{}", transcript(&state.captured));
        }
        drop(state);
        // The listener wakes, sees that it is to end, and closes.
        let _ = TcpStream::connect(self.address);
    }
}

/// The last lines of a capture, shortened.
fn transcript(captured: &[Caught]) -> String {
    let last = captured.get(captured.len().saturating_sub(60)..).unwrap_or_default();
    let line = |caught: &Caught| {
        let arrow = if caught.way == Way::Up { '>' } else { '<' };
        let short: String = caught.line.chars().take(160).collect();
        format!("  {}{} {arrow} {short}\n", caught.user, caught.session)
    };
    last.iter().map(line).collect()
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        let mut state = shared.state();
        if state.stopped {
            return;
        }
        if state.unreachable {
            continue;
        }
        let (tell, happenings) = channel();
        state.last += 1;
        let (id, upstream) = (state.last, state.upstream);
        state.sessions.insert(id, Session { tell: tell.clone(), user: String::new() });
        drop(state);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            if let Some(mut link) = Link::open(id, client, upstream, &tell, Arc::clone(&shared)) {
                link.run(&happenings);
            }
            shared.state().sessions.remove(&id);
            shared.changed.notify_all();
        });
    }
}

/// One side of a relayed connection.
struct Side {
    tls: Connection,
    socket: TcpStream,
    /// Plaintext that is no whole line yet.
    rest: Vec<u8>,
}

impl Side {
    fn new(tls: Connection, socket: TcpStream) -> Option<Side> {
        socket.set_nodelay(true).ok()?;
        socket.set_write_timeout(Some(DEADLINE)).ok()?;
        let mut side = Side { tls, socket, rest: Vec::new() };
        side.tls.set_buffer_limit(None);
        side.flush();
        Some(side)
    }

    fn flush(&mut self) {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut self.socket).is_err() {
                return; // Its end is told by the reading thread.
            }
        }
    }

    fn emit(&mut self, line: &str) {
        let _ = self.tls.writer().write_all(format!("{line}\n").as_bytes());
        self.flush();
    }

    /// Takes bytes in; the lines that became whole, and whether the peer said that nothing more comes.
    fn take(&mut self, mut bytes: &[u8]) -> (Vec<String>, bool) {
        let mut closed = false;
        while !bytes.is_empty() && !closed {
            let Ok(_) = self.tls.read_tls(&mut bytes) else { break };
            let Ok(state) = self.tls.process_new_packets() else {
                self.flush();
                return (Vec::new(), true);
            };
            let mut fresh = vec![0; state.plaintext_bytes_to_read()];
            if self.tls.reader().read_exact(&mut fresh).is_ok() {
                self.rest.append(&mut fresh);
            }
            closed = state.peer_has_closed();
        }
        self.flush();
        let mut lines = Vec::new();
        while let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=at).collect();
            lines.push(String::from_utf8_lossy(line.get(..at).unwrap_or_default()).into_owned());
        }
        (lines, closed)
    }
}

/// A relayed connection: one thread owns both sides, two more read the sockets for it.
struct Link {
    id: u64,
    client: Side,
    server: Side,
    shared: Arc<Shared>,
    /// Answers of the relay's own, by the label of the `/ping` that stands in for the command.
    answers: HashMap<String, Vec<String>>,
}

impl Link {
    fn open(
        id: u64,
        client: TcpStream,
        upstream: SocketAddr,
        tell: &Sender<Happening>,
        shared: Arc<Shared>,
    ) -> Option<Link> {
        let server = TcpStream::connect(upstream).ok()?;
        for (way, socket) in [(Way::Up, client.try_clone().ok()?), (Way::Down, server.try_clone().ok()?)] {
            let tell = tell.clone();
            std::thread::spawn(move || read(way, socket, &tell));
        }
        let name = ServerName::try_from("downstream.test").ok()?;
        let to_server = ClientConnection::new(Arc::new(config(&Options::default())), name).ok()?;
        let to_client = ServerConnection::new(Arc::clone(&shared.tls)).ok()?;
        let (client, server) = (Side::new(to_client.into(), client)?, Side::new(to_server.into(), server)?);
        Some(Link { id, client, server, shared, answers: HashMap::new() })
    }

    fn run(&mut self, happenings: &Receiver<Happening>) {
        while let Ok(happening) = happenings.recv() {
            let ended = match happening {
                Happening::Cut => break,
                Happening::Emit(way, line) => {
                    self.to(way).emit(&line);
                    None
                }
                Happening::End(way) => Some(way),
                Happening::Bytes(way, bytes) => {
                    let from = if way == Way::Up { &mut self.client } else { &mut self.server };
                    let (lines, closed) = from.take(&bytes);
                    lines.into_iter().for_each(|line| self.line(way, line));
                    closed.then_some(way)
                }
            };
            match ended {
                None => {}
                // The daemon answers what it was asked, then closes.
                Some(Way::Up) => {
                    self.server.tls.send_close_notify();
                    self.server.flush();
                }
                Some(Way::Down) => {
                    self.client.tls.send_close_notify();
                    self.client.flush();
                    break;
                }
            }
        }
        for side in [&self.client, &self.server] {
            let _ = side.socket.shutdown(Shutdown::Both);
        }
    }

    fn to(&mut self, way: Way) -> &mut Side {
        if way == Way::Up { &mut self.server } else { &mut self.client }
    }

    fn line(&mut self, way: Way, line: String) {
        if way == Way::Down
            && let Some(answer) = self.own_answer(&line)
        {
            answer.iter().for_each(|line| self.client.emit(line));
            return;
        }
        let mut state = self.shared.state();
        let user = state.sessions.get(&self.id).map(|session| session.user.clone()).unwrap_or_default();
        let user = if way == Way::Down { logged_in(&line).unwrap_or(user) } else { user };
        if let Some(session) = state.sessions.get_mut(&self.id) {
            session.user.clone_from(&user);
        }
        let caught = Caught { session: self.id, user, way, line };
        state.captured.push(caught.clone());
        drop(state);
        self.shared.changed.notify_all();
        let verdict = match self.shared.script.lock().unwrap_or_else(|e| e.into_inner()).as_mut() {
            Some(script) => script(&caught),
            None => Verdict::Pass,
        };
        match verdict {
            Verdict::Pass => self.to(way).emit(&caught.line),
            Verdict::Drop => {}
            Verdict::Instead(lines) => lines.iter().for_each(|line| self.to(way).emit(line)),
            Verdict::Hold => {
                self.shared.state().held.push(caught);
                self.shared.changed.notify_all();
            }
            Verdict::Answer(lines) => {
                let first = caught.line.split(' ').next().unwrap_or_default();
                let label = first.find('@').and_then(|at| first.get(at..)).unwrap_or_default();
                let lines = lines.iter().map(|line| line.replace("{label}", label)).collect();
                let own = format!("evil.{}.{}", self.id, self.answers.len());
                self.server.emit(&format!("/ping@{own} x"));
                self.answers.insert(own, lines);
            }
        }
    }

    fn own_answer(&mut self, line: &str) -> Option<Vec<String>> {
        let label = line.split(' ').nth(1)?.strip_prefix("ping@")?;
        // Kept, so that the count stays a fresh label.
        self.answers.get_mut(label).map(std::mem::take)
    }
}

fn logged_in(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let (ok, verb) = (words.next()?, words.next()?.split('@').next()?);
    if ok != "OK" || !["login", "register", "takeover"].contains(&verb) {
        return None;
    }
    words.find_map(|word| word.strip_prefix("user=")).map(str::to_owned)
}

fn read(way: Way, mut socket: TcpStream, tell: &Sender<Happening>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let happening = match socket.read(&mut buffer) {
            Ok(0) | Err(_) => Happening::End(way),
            Ok(n) => Happening::Bytes(way, buffer.get(..n).unwrap_or_default().to_vec()),
        };
        let last = matches!(happening, Happening::End(_));
        if tell.send(happening).is_err() || last {
            return;
        }
    }
}

/// SHA-256 of the certificate that a server shows, as `--pin` wants it.
pub(crate) fn pin_of(address: SocketAddr) -> String {
    let client = client::Client::connect(address);
    let certificate = client.tls().peer_certificates().unwrap().first().unwrap().clone();
    sha2::Sha256::digest(&certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}
