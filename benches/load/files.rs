//! Uploads: alone, beside chat, and what the same bytes cost where nothing is kept.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};

use crate::Failure;
use crate::fleet::{Fleet, Says};
use crate::report::Figures;
use crate::servers::Kind;
use crate::works::{Meter, Stage};

/// Members of the room that talks, and who uploads beside it.
pub(crate) const PEOPLE: usize = TALKERS + 1;
const TALKERS: usize = 10;
/// Bytes of one chunk, the most that the protocol takes.
const CHUNK: usize = 64 * 1024;
/// Chunks on their way: the line is never empty while the server writes one.
const WINDOW: usize = 8;
/// Bytes of one of the files that are uploaded beside chat.
const FILE: usize = 8 << 20;
/// How long an upload may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The server takes no files.
#[derive(Debug)]
pub(crate) struct NoFiles(String);

impl std::fmt::Display for NoFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server takes no files: {}", self.0)
    }
}

impl std::error::Error for NoFiles {}

/// A client that uploads one file after the other, as fast as the server takes them.
struct Uploader {
    client: usize,
    size: usize,
    /// How many files were begun: each ends with its number, so that none is known to the server. All that is in
    /// front of the number is hashed once: hashing each file would hold everybody else up whom this program plays.
    number: u64,
    hash: Sha256,
    /// Any chunk but the last, encoded.
    chunk: String,
    file: String,
    /// Bytes of the file that were sent.
    sent: usize,
    /// Bytes of all files that the server has taken.
    taken: u64,
    finished: u64,
    refused: Option<String>,
}

/// Bytes of a file's number.
const NUMBER: usize = 8;

impl Uploader {
    /// `size` is at least that of a number.
    fn new(client: usize, size: usize) -> Uploader {
        let mut hash = Sha256::new();
        let mut rest = size - NUMBER;
        while rest > 0 {
            let count = rest.min(CHUNK);
            hash.update(&[b'x'; CHUNK][..count]);
            rest -= count;
        }
        Uploader {
            client,
            size,
            number: 0,
            hash,
            chunk: Base64::encode_string(&[b'x'; CHUNK]),
            file: String::new(),
            sent: 0,
            taken: 0,
            finished: 0,
            refused: None,
        }
    }

    /// The command that begins the next file.
    fn begin(&mut self) -> String {
        (self.number, self.sent) = (self.number + 1, 0);
        let mut hex = String::new();
        for byte in self.hash.clone().chain_update(self.number.to_be_bytes()).finalize() {
            let _ = write!(hex, "{byte:02x}");
        }
        format!("/send-file u{} upload-{} {} {hex}\n", self.client, self.number, self.size)
    }

    fn next_chunk(&mut self) -> Option<String> {
        let count = CHUNK.min(self.size - self.sent);
        if count == 0 {
            return None;
        }
        let offset = self.sent;
        self.sent += count;
        let last;
        let encoded = if self.sent < self.size {
            &self.chunk
        } else {
            let mut bytes = vec![b'x'; count];
            bytes.splice(count - NUMBER.., self.number.to_be_bytes());
            last = Base64::encode_string(&bytes);
            &last
        };
        Some(format!("/chunk {} {offset} {encoded}\n", self.file))
    }

    /// Goes on by a line of the server.
    fn on(&mut self, line: &[u8], says: &mut Says) {
        let line = String::from_utf8_lossy(line);
        let key = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)).map(str::to_owned);
        if line.starts_with("OK send-file") {
            self.file = key("file=").unwrap_or_default();
            for _ in 0..WINDOW {
                says.extend(self.next_chunk().map(|chunk| (self.client, chunk)));
            }
        } else if line.starts_with("OK chunk") {
            self.taken += CHUNK.min(self.size) as u64;
            if key("done=").is_some() {
                self.finished += 1;
                let next = self.begin();
                says.push((self.client, next));
            } else {
                says.extend(self.next_chunk().map(|chunk| (self.client, chunk)));
            }
        } else if line.starts_with("ERR") {
            self.refused = Some(line.into_owned());
        }
    }

    fn check(&self) -> Result<(), Failure> {
        match &self.refused {
            Some(line) if line.starts_with("ERR send-file") => Err(Box::new(NoFiles(line.clone()))),
            Some(line) => Err(line.clone().into()),
            None => Ok(()),
        }
    }
}

/// A small room, one message at a time; first alone, then beside somebody who uploads at full speed.
pub(crate) fn beside_chat(stage: &Stage<'_>, length: Duration) -> Result<Figures, Failure> {
    let mut fleet = Fleet::new(stage.server.address)?;
    stage.arrive(&mut fleet, PEOPLE, Some(&|index| index / TALKERS))?;
    let message = stage.message(0);
    let mut uploader = Uploader::new(TALKERS, FILE);
    let (mut sent, mut arrived, mut times) = (VecDeque::from([Instant::now()]), 0, Vec::new());
    fleet.say(0, &message)?;
    let mut talk = |fleet: &mut Fleet, uploader: &mut Uploader, length: Duration| -> Result<Vec<Duration>, Failure> {
        times.clear();
        let begun = Instant::now();
        while begun.elapsed() < length {
            fleet.turn(&mut |index, line, says| {
                if index == uploader.client {
                    uploader.on(line, says);
                } else if stage.is_delivery(line) {
                    arrived += 1;
                    if arrived == TALKERS - 1 {
                        arrived = 0;
                        let now = Instant::now();
                        times.extend(sent.pop_front().map(|sent| now - sent));
                        sent.push_back(now);
                        says.push((0, message.clone()));
                    }
                }
            })?;
            uploader.check()?;
        }
        Ok(times.clone())
    };
    talk(&mut fleet, &mut uploader, length / 4)?;
    let mut quiet = talk(&mut fleet, &mut uploader, length)?;
    let begin = uploader.begin();
    fleet.say(uploader.client, &begin)?;
    talk(&mut fleet, &mut uploader, length / 4)?;
    let (before, mut meter) = (uploader.taken, Meter::start(stage.server, &fleet)?);
    let mut beside = talk(&mut fleet, &mut uploader, length)?;
    meter.stop(stage.server, &fleet)?;
    let p99 = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times.get(times.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    let (quiet, beside) = (p99(&mut quiet), p99(&mut beside));
    let mut figures = Figures::default();
    figures.set("p99 ms beside an upload", beside);
    figures.set("p99 ms quiet", quiet);
    figures.set("times", beside / quiet.max(1e-6));
    let mib = (uploader.taken - before) as f64 / f64::from(1 << 20);
    figures.set("MiB/s of the upload", mib / meter.took().as_secs_f64());
    Ok(figures)
}

/// A file of so many MiB and nothing else; on the bare server the same lines to one receiver.
pub(crate) fn alone(stage: &Stage<'_>, mib: usize) -> Result<Figures, Failure> {
    let mut fleet = Fleet::new(stage.server.address)?;
    if stage.server.kind == Kind::Bare {
        return echo(stage, fleet, mib, None);
    }
    stage.arrive(&mut fleet, 1, None)?;
    let mut uploader = Uploader::new(0, mib << 20);
    let begin = uploader.begin();
    let mut meter = Meter::start(stage.server, &fleet)?;
    fleet.say(0, &begin)?;
    while uploader.finished == 0 {
        fleet.turn(&mut |_, line, says| uploader.on(line, says))?;
        uploader.check()?;
        if meter.begun.elapsed() > PATIENCE {
            return Err(format!("{} bytes of {mib} MiB were taken", uploader.taken).into());
        }
    }
    meter.stop(stage.server, &fleet)?;
    Ok(meter.figures("MiB", mib as u64))
}

/// What `openssl s_client` gets through the bare server.
pub(crate) fn by_openssl(stage: &Stage<'_>, mib: usize) -> Result<Figures, Failure> {
    let fleet = Fleet::new(stage.server.address)?;
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", &stage.server.address.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let stdin = child.stdin.take().ok_or("no input")?;
    let figures = echo(stage, fleet, mib, Some(stdin));
    child.kill()?;
    child.wait()?;
    figures
}

/// Lines as an upload's from one client of the bare server to another, from `openssl` or our own.
fn echo(
    stage: &Stage<'_>,
    mut fleet: Fleet,
    mib: usize,
    openssl: Option<std::process::ChildStdin>,
) -> Result<Figures, Failure> {
    let line = format!("/chunk 1 0 {}\n", Base64::encode_string(&[b'x'; CHUNK]));
    let lines = (mib << 20) / CHUNK;
    let people = if openssl.is_some() { 1 } else { 2 };
    stage.arrive(&mut fleet, people, Some(&|_| 0))?;
    let mut meter = Meter::start(stage.server, &fleet)?;
    let mut sent = WINDOW.min(lines);
    let from_openssl = openssl.is_some();
    let writer = openssl.map(|mut pipe| {
        let line = line.clone();
        std::thread::spawn(move || -> std::io::Result<()> {
            pipe.write_all(b"JOIN r0\n")?;
            for _ in 0..lines {
                pipe.write_all(line.as_bytes())?;
            }
            pipe.flush()?;
            // The end of its input would end openssl before what it has read is out.
            std::thread::park_timeout(PATIENCE);
            Ok(())
        })
    });
    if !from_openssl {
        for _ in 0..sent {
            fleet.say(1, &line)?;
        }
    }
    let mut got = 0;
    while got < lines {
        fleet.turn(&mut |index, arrived, says| {
            if index == 0 && arrived.len() + 1 == line.len() {
                got += 1;
                if !from_openssl && sent < lines {
                    sent += 1;
                    says.push((1, line.clone()));
                }
            }
        })?;
        if meter.begun.elapsed() > PATIENCE {
            return Err(format!("{got} of {lines} lines arrived").into());
        }
    }
    meter.stop(stage.server, &fleet)?;
    if let Some(writer) = writer {
        writer.thread().unpark();
        writer.join().map_err(|_| "the writer ended early")??;
    }
    Ok(meter.figures("MiB", mib as u64))
}
