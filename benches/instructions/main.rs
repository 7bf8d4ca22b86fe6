//! Counts the instructions of fixed works under Callgrind and compares them with the committed figures,
//! `benches/instructions.toml`. `scripts/bench.sh --check` runs it.
//!
//! A count does not depend on how busy the machine is, and hardly on which machine it is, so it shows a
//! regression of one per cent where a clock shows nothing. What it leaves out is the kernel, waiting, and
//! how long an instruction takes: `benches/load` measures those.
//!
//! Each work runs in a process of its own: set up first, then counted inside of [`counted`], which is where
//! Callgrind is told to look. Chance and keys are fixed; the seeds of hash maps are not, which
//! moves a count by less than a ten-thousandth.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that measures: it prints and starts processes"
)]

#[path = "../sealing/mod.rs"]
mod sealing;

mod figures;
mod house;
mod server;

use std::path::{Path, PathBuf};
use std::process::Command;

use figures::Figures;

/// Whatever went wrong, for the person who runs this.
type Failure = Box<dyn std::error::Error>;

/// A count that is worse by more than this is a regression. Another patch release of the compiler moves a
/// count by about so much.
const TOLERANCE: f64 = 0.01;

const USAGE: &str = "\
Options:
  --update          write the counts to benches/instructions.toml instead of comparing
  --works A,B       only these
  --keep DIR        keep Callgrind's profiles there (for callgrind_annotate)
  --list            name the works
";

/// Where Callgrind counts: its `--toggle-collect` is this function's name.
#[inline(never)]
pub(crate) fn counted<R>(work: impl FnOnce() -> R) -> R {
    std::hint::black_box(work())
}

/// One fixed work.
struct Work {
    name: &'static str,
    /// What one of `units` is.
    unit: &'static str,
    units: u64,
    run: fn() -> Result<(), Failure>,
}

const WORKS: [Work; 13] = [
    Work { name: "lines", unit: "line", units: server::LINES, run: server::lines },
    Work { name: "room100", unit: "delivery", units: server::ROOM100 * 99, run: server::room100 },
    Work { name: "rooms50x10", unit: "delivery", units: server::ROOMS50 * 9, run: server::rooms50x10 },
    Work { name: "direct", unit: "message", units: server::DIRECT, run: server::direct },
    Work { name: "login", unit: "login", units: server::LOGINS, run: server::logins },
    Work { name: "fetch", unit: "message", units: server::FETCHED, run: server::fetch },
    Work { name: "seal-direct", unit: "message", units: SEALED, run: || seal(Sealing::Direct) },
    Work { name: "open-direct", unit: "message", units: SEALED, run: || open(Sealing::Direct) },
    Work { name: "dialogue", unit: "message", units: SEALED, run: dialogue },
    Work { name: "seal-room200", unit: "message", units: SEALED, run: || seal(Sealing::Room) },
    Work { name: "open-room200", unit: "message", units: SEALED, run: || open(Sealing::Room) },
    Work { name: "seal-file", unit: "MiB", units: MIB, run: seal_file },
    Work { name: "open-file", unit: "MiB", units: MIB, run: open_file },
];

/// Messages that are sealed or opened.
const SEALED: u64 = 100;
/// The file's length in MiB.
const MIB: u64 = 2;
/// Members of the sealed room.
const MEMBERS: usize = 200;

enum Sealing {
    Direct,
    Room,
}

impl Sealing {
    fn talk(self) -> sealing::Talk {
        match self {
            Sealing::Direct => sealing::Talk::direct(),
            Sealing::Room => sealing::Talk::room(MEMBERS),
        }
    }
}

fn seal(what: Sealing) -> Result<(), Failure> {
    let mut talk = what.talk();
    counted(|| (0..SEALED).for_each(|_| drop(talk.seal())));
    Ok(())
}

fn open(what: Sealing) -> Result<(), Failure> {
    let mut talk = what.talk();
    let lines: Vec<_> = (0..SEALED).map(|_| talk.seal()).collect();
    counted(|| lines.iter().for_each(|line| talk.open(line)));
    Ok(())
}

/// Each says something in turn, so that every message begins a chain.
fn dialogue() -> Result<(), Failure> {
    let mut talk = sealing::Talk::direct();
    counted(|| {
        for _ in 0..SEALED {
            let line = talk.seal();
            talk.open(&line);
            talk.turn();
        }
    });
    Ok(())
}

fn seal_file() -> Result<(), Failure> {
    let file = vec![b'x'; (MIB as usize) << 20];
    let sealed = counted(|| sealing::seal_file(&file));
    if sealed.chunks.is_empty() { Err("nothing was sealed".into()) } else { Ok(()) }
}

fn open_file() -> Result<(), Failure> {
    let sealed = sealing::seal_file(&vec![b'x'; (MIB as usize) << 20]);
    counted(|| sealing::open_file(&sealed));
    Ok(())
}

#[derive(Default)]
struct Options {
    update: bool,
    works: Option<Vec<String>>,
    keep: Option<PathBuf>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", name] => find(name).and_then(|work| (work.run)()),
        ["--list"] => {
            WORKS.iter().for_each(|work| println!("{}", work.name));
            Ok(())
        }
        ["--help"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => options(arguments).and_then(|options| check(&options)),
    };
    if let Err(error) = done {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn options(arguments: Vec<String>) -> Result<Options, Failure> {
    let mut options = Options::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--update" => options.update = true,
            "--works" => options.works = Some(value()?.split(',').map(str::to_owned).collect()),
            "--keep" => options.keep = Some(value()?.into()),
            _ => return Err(format!("unknown option {argument}\n{USAGE}").into()),
        }
    }
    for name in options.works.iter().flatten() {
        find(name)?;
    }
    Ok(options)
}

fn find(name: &str) -> Result<&'static Work, Failure> {
    WORKS.iter().find(|work| work.name == name).ok_or_else(|| format!("no work is named {name}").into())
}

fn check(options: &Options) -> Result<(), Failure> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.toml");
    let mut committed = Figures::read(&file)?;
    let here = figures::tools()?;
    if !options.update && committed.tools != here {
        println!("note: the committed figures were made with {}, these with {here}", committed.tools);
    }
    let temporary = tempfile::tempdir()?;
    let directory = options.keep.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(directory)?;
    let mut worse = Vec::new();
    println!("| work | instructions each | committed | change |\n|---|---|---|---|");
    for work in &WORKS {
        if options.works.as_ref().is_some_and(|works| !works.iter().any(|name| name == work.name)) {
            continue;
        }
        let count = count(work, directory)?;
        let each = |count: u64| format!("{} a {}", count / work.units, work.unit);
        let before = committed.counts.insert(work.name.to_owned(), count);
        let (before_text, change) = match before {
            None => ("none".to_owned(), None),
            Some(before) => (each(before), Some(count as f64 / before as f64 - 1.0)),
        };
        let change_text = change.map_or("—".to_owned(), |change| format!("{:+.2} %", change * 100.0));
        println!("| {} | {} | {before_text} | {change_text} |", work.name, each(count));
        match change {
            None => worse.push(format!("{} has no committed figure", work.name)),
            Some(change) if change > TOLERANCE => {
                worse.push(format!("{} needs {:.2} % more instructions", work.name, change * 100.0));
            }
            Some(_) => {}
        }
    }
    if options.update {
        committed.tools = here;
        committed.counts.retain(|name, _| WORKS.iter().any(|work| work.name == name));
        committed.write(&file)?;
        println!("written to {}", file.display());
        return Ok(());
    }
    if worse.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}; the tolerance is {} %.\nProfile it: scripts/bench.sh --check --works NAME --keep DIR, then \
         callgrind_annotate DIR/NAME.out.\nIf it is worth its price: scripts/bench.sh --check --update, and say why \
         in the commit.",
        worse.join("; "),
        TOLERANCE * 100.0
    )
    .into())
}

/// Runs a work under Callgrind.
fn count(work: &Work, directory: &Path) -> Result<u64, Failure> {
    let out = directory.join(format!("{}.out", work.name));
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--toggle-collect=instructions::counted*"]);
    command.arg(format!("--callgrind-out-file={}", out.display()));
    let run = command.arg(std::env::current_exe()?).args(["run", work.name]).output();
    let run = run.map_err(|error| format!("valgrind cannot be started: {error}"))?;
    if !run.status.success() {
        return Err(format!("{}: {}", work.name, String::from_utf8_lossy(&run.stderr)).into());
    }
    match figures::total(&out)? {
        0 => Err(format!("{}: Callgrind saw nothing counted", work.name).into()),
        count => Ok(count),
    }
}
