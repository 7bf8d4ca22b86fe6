//! A daemon behind an address that stays, however often it dies, and a line to it that can be stopped.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use crate::dsc::Dsc;
use crate::support::{DEADLINE, Daemon, Home};

/// A daemon that can be away and come back, behind an address that stays.
pub(crate) struct Place {
    home: Home,
    daemon: Mutex<Option<Daemon>>,
    address: SocketAddr,
    behind: Arc<Mutex<Option<SocketAddr>>>,
    gate: Arc<Gate>,
    back: Arc<Gate>,
}

/// What of the bytes in one direction is let through.
#[derive(Default)]
struct Gate {
    /// So many more; `None`: all.
    left: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Gate {
    fn take(&self, count: usize) {
        let left = self.left.lock().unwrap();
        let mut left = self.changed.wait_while(left, |left| *left == Some(0)).unwrap();
        if let Some(left) = left.as_mut() {
            *left = left.saturating_sub(count);
        }
        self.changed.notify_all();
    }

    fn wait_closed(&self) {
        let left = self.left.lock().unwrap();
        let (left, _) = self.changed.wait_timeout_while(left, DEADLINE, |left| *left != Some(0)).unwrap();
        assert_eq!(*left, Some(0), "nobody has sent so much");
    }
}

impl Place {
    pub(crate) fn new() -> Place {
        Place::with("")
    }

    /// With settings of its own (TOML).
    pub(crate) fn with(config: &str) -> Place {
        let home = Home::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (behind, gate, back) = (Arc::new(Mutex::new(None)), Arc::<Gate>::default(), Arc::<Gate>::default());
        let (to, through, through_back) = (Arc::clone(&behind), Arc::clone(&gate), Arc::clone(&back));
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                // Nobody behind: the client sees its connection cut.
                let to: Option<SocketAddr> = *to.lock().unwrap();
                let Some(Ok(server)) = to.map(TcpStream::connect) else { continue };
                pass(client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&through));
                pass(server, client, Arc::clone(&through_back));
            }
        });
        let place = Place { home, daemon: Mutex::new(None), address, behind, gate, back };
        place.up();
        place
    }

    pub(crate) fn up(&self) {
        let daemon = self.home.start();
        *self.behind.lock().unwrap() = Some(daemon.address());
        *self.daemon.lock().unwrap() = Some(daemon);
    }

    /// kill -9.
    pub(crate) fn down(&self) {
        *self.behind.lock().unwrap() = None;
        let daemon = self.daemon.lock().unwrap().take();
        daemon.unwrap().kill();
    }

    /// Lets so many more bytes of the clients through, and then none.
    pub(crate) fn close_after(&self, bytes: usize) {
        *self.gate.left.lock().unwrap() = Some(bytes);
    }

    /// The same for the server's bytes.
    pub(crate) fn starve_after(&self, bytes: usize) {
        *self.back.left.lock().unwrap() = Some(bytes);
    }

    /// Waits until the gate has closed: somebody is in the middle of something.
    pub(crate) fn wait_closed(&self) {
        self.gate.wait_closed();
    }

    /// The same of the gate of [`Place::starve_after`].
    pub(crate) fn wait_starved(&self) {
        self.back.wait_closed();
    }

    /// Lets everything through again.
    pub(crate) fn open(&self) {
        for gate in [&self.gate, &self.back] {
            *gate.left.lock().unwrap() = None;
            gate.changed.notify_all();
        }
    }

    pub(crate) fn pin(&self) -> String {
        let known = std::fs::read_to_string(self.home.path("certs/cert.pem")).unwrap();
        let der = rustls_pemfile::certs(&mut known.as_bytes()).next().unwrap().unwrap();
        use sha2::Digest as _;
        sha2::Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn register(&self, user: &str) -> Dsc {
        Dsc::register(user, self.address, &self.pin())
    }

    pub(crate) fn login(&self, user: &str) -> Dsc {
        Dsc::login(user, self.address, &self.pin())
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, gate: Arc<Gate>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            gate.take(n);
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

/// Bytes that look like nothing, the same for the same seed.
pub(crate) fn random(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..count).map(|_| draw()).collect()
}
