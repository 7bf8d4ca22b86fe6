//! What befalls the daemon: kill -9, a disk that is full or broken, a clock that jumps, signals.

use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::{Resource, Rlimit, Signal, prlimit};

use crate::cast::LISTENER;
use crate::stage::Stage;
use crate::support::client::wait_until;
use crate::support::{Daemon, Home};

/// Where Debian has libfaketime, on any of its architectures.
const FAKETIME: &str = "/usr/lib/*/faketime/libfaketime.so.1";
/// Set where the tests may not trace processes, or where libfaketime is missing; without them, that is a failure.
const WITHOUT_STRACE: &str = "DOWNSTREAM_TESTS_WITHOUT_STRACE";
const WITHOUT_FAKETIME: &str = "DOWNSTREAM_TESTS_WITHOUT_FAKETIME";
/// Names a small filesystem on which the data lies and that may be filled.
const DISK: &str = "ENDURANCE_DISK";
/// How far the clock jumps, in seconds. Less than the 24 hours for which a key of `/post` is remembered.
const JUMPS: [i64; 5] = [3600, -3600, 8 * 3600, -8 * 3600, 0];
/// Signals at once.
const STORM: usize = 50;
/// Files whose data fails: numbers before the highest that is known, and behind it.
const FILES_BEFORE: u64 = 200;
const FILES_AHEAD: u64 = 400;
/// No file may be longer while the disk counts as full.
const FULL_BYTES: u64 = 4096;

/// What happens in one life of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Nothing, before it is killed.
    Fair,
    /// One write in a few finds no space.
    NoSpace,
    /// One write in a few fails.
    BadWrites,
    /// One sync in a few fails.
    BadSyncs,
    /// The data of files finds no space now and then, and the rest of the disk is well.
    NoSpaceForFiles,
    /// The data of files cannot be opened, written, put on stable storage, cut or deleted now and then.
    BadFiles,
    /// No file may grow for a while; and where there is a filesystem for it, that is full for a while.
    Full,
    /// The clock is set forward and back.
    Clock,
    /// SIGHUP again and again, with another configuration, and with one that is none.
    Signals,
}

impl Weather {
    /// One after the other.
    pub(crate) const ALL: [Weather; 9] = [
        Weather::Fair,
        Weather::NoSpace,
        Weather::NoSpaceForFiles,
        Weather::Full,
        Weather::BadWrites,
        Weather::BadFiles,
        Weather::Clock,
        Weather::BadSyncs,
        Weather::Signals,
    ];
    /// Those that one life of a daemon can have in turn.
    pub(crate) const PASSING: [Weather; 4] = [Weather::Clock, Weather::Signals, Weather::Full, Weather::Fair];

    /// What `strace` does to which calls: an error at the first number, and then at each second one, counted for each
    /// call and each thread. The first lies behind what a start writes.
    fn injections(self) -> &'static [&'static str] {
        match self {
            Weather::NoSpace => &["pwrite64,ftruncate,fallocate:error=ENOSPC:when=90+31"],
            Weather::BadWrites => &["pwrite64:error=EIO:when=90+67"],
            Weather::BadSyncs => &["fdatasync,fsync:error=EIO:when=20+7"],
            Weather::NoSpaceForFiles => {
                &["openat:error=ENOSPC:when=3+7", "pwrite64:error=ENOSPC:when=4+5", "ftruncate:error=ENOSPC:when=2+3"]
            }
            // Some architectures have only the one that unlinks below a directory.
            Weather::BadFiles => &[
                "openat:error=EIO:when=4+9",
                "pwrite64:error=EIO:when=5+11",
                "fdatasync:error=EIO:when=4+9",
                "fsync:error=EIO:when=6+9",
                "ftruncate:error=EIO:when=1+3",
                "/^unlink:error=EIO:when=1+2",
            ],
            _ => &[],
        }
    }

    /// Whether calls fail that have nothing to do with room.
    pub(crate) fn is_failing(self) -> bool {
        !self.injections().is_empty()
    }

    /// Whether only the data of files is at fault.
    fn is_for_files(self) -> bool {
        matches!(self, Weather::NoSpaceForFiles | Weather::BadFiles)
    }

    /// The arguments of `strace` that make it so.
    fn trace(self, home: &Home, stage: &Stage) -> String {
        let injections = self.injections();
        let calls: Vec<&str> = injections.iter().map(|text| text.split(':').next().unwrap()).collect();
        // -D: the daemon itself is the child, so that it can be killed; strace ends with it.
        let mut trace = format!("strace -D -f --seccomp-bpf -qqq -o /dev/null -e trace={}", calls.join(","));
        for injection in injections {
            trace += &format!(" -e inject={injection}");
        }
        if self.is_for_files() {
            // The directory, the files that are there, and those that come next.
            let directory = home.path("data/files");
            trace += &format!(" -P {}", directory.display());
            let highest = stage.shelf.lock().unwrap().highest();
            for number in highest.saturating_sub(FILES_BEFORE)..=highest + FILES_AHEAD {
                trace += &format!(" -P {}/{number}", directory.display());
            }
        }
        trace
    }

    /// Starts a daemon that will have this weather, with a clock that can be set.
    pub(crate) fn start(self, home: &Home, stage: &Stage) -> Daemon {
        let clock = home.path("clock");
        set_clock(&clock, 0);
        // A write behind the limit gives an error and not the signal.
        let mut prelude = String::from("trap '' XFSZ");
        if !self.injections().is_empty() && can_trace() {
            prelude += &format!("; set -- {} \"$@\"", self.trace(home, stage));
        } else if let Some(library) = faketime() {
            // Only the clock on the wall: nobody can set the other one.
            prelude += &format!(
                "; export LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 \
                 FAKETIME_DONT_FAKE_MONOTONIC=1",
                clock.display()
            );
        }
        home.start_under(&prelude)
    }

    /// Lets it happen to a daemon that is at work, until it works again. `config` is the configuration.
    pub(crate) fn befall(self, stage: &Stage, home: &Home, daemon: &mut Daemon, config: &str) {
        match self {
            Weather::Fair => {}
            Weather::NoSpace | Weather::BadWrites | Weather::BadSyncs => {
                if can_trace() {
                    let before = stage.failed.load(Ordering::Relaxed);
                    wait_until("the disk fails", || stage.failed.load(Ordering::Relaxed) > before || stage.is_over());
                }
            }
            Weather::NoSpaceForFiles | Weather::BadFiles => {
                if can_trace() {
                    fail_files(stage, 5);
                }
            }
            Weather::Full => {
                let limit = |bytes| {
                    let limit = Rlimit { current: bytes, maximum: None };
                    prlimit(Some(daemon.pid()), Resource::Fsize, limit).unwrap();
                };
                let before = stage.failed.load(Ordering::Relaxed);
                limit(Some(FULL_BYTES));
                wait_until("the disk is full", || {
                    stage.failed.load(Ordering::Relaxed) >= before + 5 || stage.is_over()
                });
                fail_files(stage, 5);
                limit(None);
                work(stage, 20);
                if let Some(disk) = std::env::var_os(DISK) {
                    fill(stage, Path::new(&disk));
                }
            }
            Weather::Clock => {
                for seconds in JUMPS {
                    set_clock(&home.path("clock"), seconds);
                    work(stage, 10);
                }
            }
            Weather::Signals => {
                for n in 0..STORM {
                    match n % 3 {
                        0 => home.configure(&format!("{config}\n[retention]\ndays = {}", n + 1000)),
                        1 => replace(&home.path("downstream.toml"), "this is no configuration"),
                        _ => {}
                    }
                    daemon.signal(Signal::HUP);
                }
                home.configure(config);
                daemon.signal(Signal::HUP);
            }
        }
        work(stage, 20);
        assert!(stage.is_over() || daemon.is_alive(), "the daemon ended in {self:?}");
    }
}

/// Waits until so many more messages were stored, and some chunks of files.
pub(crate) fn work(stage: &Stage, messages: usize) {
    let count = || (stage.stored.load(Ordering::Relaxed), stage.chunks.load(Ordering::Relaxed));
    let before = count();
    wait_until("messages and chunks are stored", || {
        let (stored, chunks) = count();
        (stored >= before.0 + messages && chunks >= before.1 + messages / 10) || stage.is_over()
    });
}

/// Waits until the data of files has failed so often.
fn fail_files(stage: &Stage, times: usize) {
    let before = stage.files_failed.load(Ordering::Relaxed);
    wait_until("the disk fails under files", || {
        stage.files_failed.load(Ordering::Relaxed) >= before + times || stage.is_over()
    });
}

/// Takes all space of a filesystem, until that was noticed. The store writes over what it has for a while, so
/// somebody says a lot.
fn fill(stage: &Stage, disk: &Path) {
    let Some(mut session) = stage.login(LISTENER) else { return };
    let balloon = disk.join("balloon");
    let file = std::fs::File::create(&balloon).unwrap();
    let (mut taken, mut refused) = (0, 0);
    wait_until("there is no space left", || {
        // In halves, so that the last block goes as well; and again, since checkpoints make space.
        let mut piece = 1 << 40;
        while piece >= 1024 {
            match fallocate(&file, FallocateFlags::empty(), taken, piece) {
                Ok(()) => taken += piece,
                Err(_) => piece /= 2,
            }
        }
        let body = format!("{} {}", stage.number(), "f".repeat(60_000));
        stage.ledger.lock().unwrap().sent(&body);
        session.client.say(&format!("/msg {LISTENER} {body}"));
        refused += usize::from(session.answered(LISTENER, &body).is_ok_and(|id| id.is_none()));
        refused >= 5 || stage.is_over()
    });
    std::fs::remove_file(&balloon).unwrap();
}

fn set_clock(path: &Path, seconds: i64) {
    replace(path, &format!("{seconds:+}"));
}

/// Writes the whole of a file at once, since it is read at any time.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

/// Whether processes can be traced here.
fn can_trace() -> bool {
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=none", "true"]);
    let works = command.status().is_ok_and(|status| status.success());
    let excused = std::env::var_os(WITHOUT_STRACE).is_some();
    assert!(works || excused, "strace does not work here; {WITHOUT_STRACE}=1 does without a failing disk");
    works
}

fn faketime() -> Option<String> {
    let found = std::process::Command::new("sh").args(["-c", &format!("ls {FAKETIME}")]).output().unwrap();
    let path = String::from_utf8(found.stdout).unwrap().lines().next().map(str::to_owned);
    let excused = std::env::var_os(WITHOUT_FAKETIME).is_some();
    assert!(
        path.is_some() || excused,
        "libfaketime is missing (Debian: apt install faketime); {WITHOUT_FAKETIME}=1 does without a clock that jumps"
    );
    path
}
