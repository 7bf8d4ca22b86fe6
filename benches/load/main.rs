//! Drives DownStream, InspIRCd, ngIRCd and a bare fan-out server with the same works, over TLS on loopback,
//! and prints what each cost. `scripts/bench.sh` runs it; `cargo bench --bench load -- --help` lists the
//! options.
//!
//! What counts is CPU time of the server process, user and system, all threads, for one delivery: it
//! depends least on what else the machine does. Runs are interleaved, so that a slow minute meets all.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a program that measures: it prints, reads clocks and files, and opens sockets"
)]

mod bare;
#[path = "../sealing/mod.rs"]
mod e2e;
mod files;
mod fleet;
mod report;
mod scaling;
mod sealing;
mod servers;
mod sqlite;
mod works;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use report::{Figures, Row};
use servers::{Kind, Pair, Server};
use works::{Accounts, Stage};

/// Whatever went wrong, for the person who runs this.
type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "\
Options:
  --runs N          runs of each work (default 5)
  --seconds S       length of one measurement (default 2)
  --quick           one run, half a second, fewer clients and messages
  --works A,B       only these: room100 rooms50x10 room1000 pair storm idle offline fetch
                    sealing upload file
  --servers A,B     only these: bare downstream inspircd ngircd
  --budget S        begin no further run after so many seconds (default 540)
  --json FILE       every figure of every run
  --scaling         how cost grows instead: one run of each series (members, rooms, connections, history, size)
  --hold SECONDS    with one work and one server: print the server's process id and repeat the work so long
                    (for perf and strace)
The variable DOWNSTREAM names another build of the daemon to measure.
";

struct Options {
    runs: usize,
    length: Duration,
    quick: bool,
    works: Vec<Work>,
    servers: Vec<Kind>,
    budget: Duration,
    json: Option<PathBuf>,
    hold: Option<Duration>,
    scaling: bool,
}

impl Options {
    /// Length of the file that is uploaded alone, in MiB.
    fn mib(&self) -> usize {
        if self.quick { 8 } else { 64 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Room100,
    Rooms50x10,
    Room1000,
    Pair,
    Storm,
    Idle,
    Offline,
    Fetch,
    /// By the end-to-end library, without a server.
    Sealing,
    /// Chat beside an upload.
    Upload,
    /// An upload alone.
    File,
}

impl Work {
    const ALL: [Work; 11] = [
        Work::Room100,
        Work::Rooms50x10,
        Work::Room1000,
        Work::Pair,
        Work::Storm,
        Work::Idle,
        Work::Offline,
        Work::Fetch,
        Work::Sealing,
        Work::Upload,
        Work::File,
    ];

    fn name(self) -> &'static str {
        match self {
            Work::Room100 => "room100",
            Work::Rooms50x10 => "rooms50x10",
            Work::Room1000 => "room1000",
            Work::Pair => "pair",
            Work::Storm => "storm",
            Work::Idle => "idle",
            Work::Offline => "offline",
            Work::Fetch => "fetch",
            Work::Sealing => "sealing",
            Work::Upload => "upload",
            Work::File => "file",
        }
    }

    /// Whether a server can do it, and is what it is compared with.
    fn is_for(self, kind: Kind) -> bool {
        match self {
            Work::Sealing => false,
            Work::Offline | Work::Upload => kind == Kind::Downstream,
            Work::File | Work::Fetch | Work::Storm => matches!(kind, Kind::Downstream | Kind::Bare),
            // ngIRCd takes longer than a minute to take in a thousand people.
            Work::Room1000 | Work::Idle => kind != Kind::Ngircd,
            _ => true,
        }
    }

    fn once(self) -> bool {
        self == Work::Idle // memory does not vary from run to run
    }

    fn run(self, stage: &Stage<'_>, options: &Options) -> Result<Figures, Failure> {
        let length = options.hold.unwrap_or(options.length);
        let pick = |full, quick| if options.quick { quick } else { full };
        match self {
            Work::Room100 => stage.rooms(1, 100, 8, 0, length),
            Work::Rooms50x10 => stage.rooms(50, 10, 4, 0, length),
            Work::Room1000 => stage.rooms(1, 1000, 8, 0, length),
            Work::Pair => stage.rooms(1, 2, 1, 0, length),
            Work::Storm => stage.storm(pick(1000, 300)),
            Work::Idle => stage.idle(pick(4000, 1000)),
            Work::Offline => stage.offline(200, length),
            Work::Fetch => stage.fetch(pick(100_000, 10_000)),
            Work::Sealing => Err("it needs no server".into()),
            Work::Upload => files::beside_chat(stage, length),
            Work::File => files::alone(stage, options.mib()),
        }
    }
}

fn options() -> Result<Options, Failure> {
    let mut options = Options {
        runs: 5,
        length: Duration::from_secs(2),
        quick: false,
        works: Work::ALL.to_vec(),
        servers: Kind::ALL.to_vec(),
        budget: Duration::from_secs(540),
        json: None,
        hold: None,
        scaling: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--bench" => {} // cargo says so
            "--runs" => options.runs = value()?.parse()?,
            "--seconds" => options.length = Duration::from_secs_f64(value()?.parse()?),
            "--quick" => (options.quick, options.runs, options.length) = (true, 1, Duration::from_millis(500)),
            "--works" => options.works = listed(&value()?, &Work::ALL, |work| work.name())?,
            "--servers" => options.servers = listed(&value()?, &Kind::ALL, |kind| kind.name())?,
            "--budget" => options.budget = Duration::from_secs(value()?.parse()?),
            "--json" => options.json = Some(value()?.into()),
            "--scaling" => options.scaling = true,
            "--hold" => options.hold = Some(Duration::from_secs(value()?.parse()?)),
            "--help" => {
                print!("{USAGE}");
                std::process::exit(0);
            }
            _ => return Err(format!("unknown option {argument}\n{USAGE}").into()),
        }
    }
    Ok(options)
}

fn listed<T: Copy>(text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<Vec<T>, Failure> {
    let find = |word: &str| all.iter().copied().find(|&one| name(one) == word).ok_or(format!("unknown name {word}"));
    Ok(text.split(',').map(find).collect::<Result<Vec<T>, String>>()?)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["bare", cert, key] => bare::serve(Path::new(cert), Path::new(key)),
        _ => options().and_then(|options| measure(&options)),
    };
    if let Err(error) = done {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn measure(options: &Options) -> Result<(), Failure> {
    let begun = Instant::now();
    // On the disk where the build is, not on a file system in memory: commits are part of the works.
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let pair = Pair::make(root.path())?;
    let accounts = accounts(options, root.path(), &pair)?;
    let mut rows: Vec<Row> = Vec::new();
    if options.scaling {
        scaling::measure(options, root.path(), &pair, &accounts, &mut rows)?;
    } else {
        compare(options, begun, root.path(), &pair, &accounts, &mut rows)?;
    }
    print!("{}", report::table(&rows));
    println!("\n{} in {} s", machine(), begun.elapsed().as_secs());
    if let Some(path) = &options.json {
        fs::write(path, report::json(&rows, &machine()))?;
    }
    Ok(())
}

/// Every work on every server, again and again.
fn compare(
    options: &Options,
    begun: Instant,
    root: &Path,
    pair: &Pair,
    accounts: &Accounts,
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    for run in 0..options.runs {
        if begun.elapsed() > options.budget {
            println!("the time is up after {run} runs");
            break;
        }
        for &work in options.works.iter().filter(|work| run == 0 || !work.once()) {
            for &kind in options.servers.iter().filter(|&&kind| work.is_for(kind)) {
                if !kind.is_installed() {
                    continue;
                }
                let (_dir, server) = start(kind, root, pair)?;
                if options.hold.is_some() {
                    println!("{} is process {}", kind.name(), server.id());
                }
                let figures = work.run(&Stage { server: &server, accounts }, options);
                match figures {
                    Ok(figures) => note(rows, work.name(), kind.name(), figures),
                    // Other servers have limits of their own, and an older daemon has no files.
                    Err(error) if matches!(kind, Kind::Inspircd | Kind::Ngircd) || error.is::<files::NoFiles>() => {
                        println!("{}, {}: not measured: {error}", work.name(), kind.name());
                    }
                    Err(error) => return Err(format!("{}, {}: {error}", work.name(), kind.name()).into()),
                }
            }
            if work == Work::File && options.servers.contains(&Kind::Bare) {
                let (_dir, server) = start(Kind::Bare, root, pair)?;
                let stage = Stage { server: &server, accounts };
                note(rows, work.name(), "openssl", files::by_openssl(&stage, options.mib())?);
            }
            if work == Work::Sealing {
                for case in sealing::cases(options.length / 4, 200)? {
                    note(rows, case.work, case.by, case.figures);
                }
            }
            if work == Work::Offline || work == Work::Pair {
                let dir = tempfile::tempdir_in(root)?;
                note(rows, work.name(), "sqlite", sqlite::inserts(dir.path(), options.length / 2)?);
            }
        }
    }
    Ok(())
}

/// Starts a server in a directory of its own; the daemon with a copy of the accounts.
fn start(kind: Kind, root: &Path, pair: &Pair) -> Result<(tempfile::TempDir, Server), Failure> {
    let dir = tempfile::tempdir_in(root)?;
    if kind == Kind::Downstream {
        copy(&root.join("accounts/data"), &dir.path().join("data"))?;
    }
    let server = Server::start(kind, dir.path(), pair)?;
    Ok((dir, server))
}

fn accounts(options: &Options, root: &Path, pair: &Pair) -> Result<Accounts, Failure> {
    let needed = |work: &Work| match work {
        Work::Idle if !options.quick => 4000,
        Work::Sealing => 0,
        Work::Pair | Work::Fetch => 2,
        Work::File => 1,
        Work::Upload => files::PEOPLE,
        Work::Room100 => 100,
        Work::Offline => 400,
        Work::Rooms50x10 => 500,
        Work::Idle | Work::Room1000 | Work::Storm => 1000,
    };
    let works = options.works.iter().map(needed).max();
    let count = if options.scaling { Some(scaling::PEOPLE) } else { works };
    let count = count.filter(|_| options.servers.contains(&Kind::Downstream));
    let dir = root.join("accounts");
    fs::create_dir(&dir)?;
    Accounts::make(&dir, pair, count.unwrap_or(0))
}

fn note(rows: &mut Vec<Row>, work: &str, server: &str, figures: Figures) {
    let line: Vec<String> = figures.0.iter().map(|(name, value)| format!("{value:.2} {name}")).collect();
    eprintln!("{work:12} {server:12} {}", line.join(", "));
    match rows.iter_mut().find(|row| row.work == work && row.server == server) {
        Some(row) => row.runs.push(figures),
        None => rows.push(Row { work: work.to_owned(), server: server.to_owned(), runs: vec![figures] }),
    }
}

/// Copies a directory with what is in it.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

/// What the figures were measured on.
fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!("{} ({cores} cores), Linux {}, load {load}", model.trim_matches([':', '\t', ' ']), kernel.trim())
}
