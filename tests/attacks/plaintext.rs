//! The server never holds what people say end to end: not in its database, its log, its memory, nor on the
//! wire.

use std::io::{Read, Seek, SeekFrom};

use crate::common::e2e::armour;
use crate::evil::{Stage, Way};
use crate::support::Daemon;

/// Where `needle` stands.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = hay.get(from..)?.iter().position(|byte| *byte == first) {
        from += at;
        if hay.get(from..)?.starts_with(needle) {
            return Some(from);
        }
        from += 1;
    }
    None
}

/// Every window of eight bytes of a text, and of the same text in base64 (at each of the three offsets),
/// hexadecimal and UTF-16, as a sorted list to search for all at once.
struct Needles(Vec<[u8; 8]>);

impl Needles {
    fn of(text: &str) -> Needles {
        let mut forms = vec![
            text.as_bytes().to_vec(),
            armour::hex(text.as_bytes()).into_bytes(),
            armour::hex(text.as_bytes()).to_uppercase().into_bytes(),
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        ];
        for offset in 0..3 {
            // What stands before and behind decides the first and the last letters.
            let shifted = [&vec![0; offset][..], text.as_bytes()].concat();
            let base64 = armour::base64(&shifted);
            let whole = base64.trim_end_matches('=');
            forms.push(whole.as_bytes()[if offset == 0 { 0 } else { offset + 1 }..whole.len() - 1].to_vec());
        }
        let windows = forms.iter().flat_map(|form| form.windows(8).map(|w| <[u8; 8]>::try_from(w).unwrap()));
        // UTF-16 has zeros between its letters, of which the memory of any program is full.
        let mut all: Vec<[u8; 8]> = windows.filter(|w| w.iter().filter(|b| **b != 0).count() >= 4).collect();
        all.sort_unstable();
        all.dedup();
        Needles(all)
    }

    /// The first window that occurs, and where.
    fn found(&self, hay: &[u8]) -> Option<(usize, String)> {
        // Most places are passed over by their first two bytes.
        let mut starts = vec![false; 1 << 16];
        for needle in &self.0 {
            starts[usize::from(u16::from_be_bytes([needle[0], needle[1]]))] = true;
        }
        let at = hay.windows(8).position(|window| {
            starts[usize::from(u16::from_be_bytes([window[0], window[1]]))]
                && self.0.binary_search_by(|needle| needle.as_slice().cmp(window)).is_ok()
        })?;
        Some((at, String::from_utf8_lossy(&hay[at..at + 8]).into_owned()))
    }
}

/// All readable memory of a process, region by region: what a core image of it would hold.
fn memory(daemon: &Daemon) -> Vec<(String, Vec<u8>)> {
    let pid = daemon.pid().as_raw_nonzero();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut file = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut regions = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, mode) = (words.next().unwrap(), words.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let name = words.last().unwrap_or_default();
        // The kernel's own pages cannot be read by anybody.
        if !mode.starts_with('r') || name.starts_with("[v") {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        file.seek(SeekFrom::Start(from)).unwrap();
        let mut read = 0;
        while let Ok(n @ 1..) = file.read(&mut bytes[read..]) {
            read += n;
        }
        bytes.truncate(read);
        regions.push((line.to_owned(), bytes));
    }
    regions
}

#[test]
fn the_server_never_holds_a_word() {
    const DIRECT: &str = "Zanzibar Quokka whispers 7351";
    const ROOM: &str = "Xylophone Gherkin mutters 9046";
    const ANSWER: &str = "Voluptuous Jackdaw replies 2817";
    const PLAIN: &str = "Wombat Fjords shout in clear 6";
    let s = Stage::talkative();
    let (alice, bob) = (s.dsc("alice"), s.dsc("bob"));
    alice.run(&["create", "#room"]).ok();
    alice.run(&["invite", "#room", "bob"]).ok();
    bob.run(&["join", "#room"]).ok();
    let mut tail = bob.tail();
    alice.run(&["send", "bob", DIRECT]).ok();
    tail.wait_text(DIRECT);
    alice.run(&["send", "#room", ROOM]).ok();
    tail.wait_text(ROOM);
    tail.stop();
    bob.run(&["send", "alice", ANSWER]).ok();
    // One that nobody fetches, and one that the server may read.
    bob.run(&["send", "#room", ANSWER]).ok();
    alice.run(&["create", "#plain", "--plain", "--open"]).ok();
    alice.run(&["send", "--plain", "#plain", PLAIN]).ok();
    assert_eq!(alice.run(&["fetch", "bob"]).ok().texts().iter().filter(|text| *text == ANSWER).count(), 1);

    let wire: Vec<u8> = s.evil.captured().iter().flat_map(|caught| [caught.line.as_bytes(), b"\n"].concat()).collect();
    assert!(s.evil.captured().iter().any(|caught| caught.way == Way::Up));
    let log = s.daemon.log().into_bytes();
    let mut files = Vec::new();
    collect(&s.home.path("data"), &mut files);
    assert!(files.iter().any(|(name, _)| name.ends_with("-wal")), "the write-ahead log is searched too");
    let memory = memory(&s.daemon);
    assert!(memory.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > 1 << 20);
    for text in [DIRECT, ROOM, ANSWER] {
        let needles = Needles::of(text);
        assert_eq!(needles.found(&wire), None, "{text} on the wire");
        assert_eq!(needles.found(&log), None, "{text} in the log");
        for (name, bytes) in &files {
            assert_eq!(needles.found(bytes), None, "{text} in {name}");
        }
        for (region, bytes) in &memory {
            assert_eq!(needles.found(bytes), None, "{text} in memory at {region}");
        }
    }
    // The same search finds what was said in the clear, so that it can fail: on the wire and in memory.
    // In the database it is sealed with the server's own key.
    let plain = Needles::of(PLAIN);
    assert!(plain.found(&wire).is_some());
    assert!(memory.iter().any(|(_, bytes)| plain.found(bytes).is_some()), "the search sees the memory");
    // It finds every form.
    for form in [armour::base64(format!("xy{PLAIN}z").as_bytes()), armour::hex(PLAIN.as_bytes())] {
        assert!(plain.found(form.as_bytes()).is_some());
    }
    let utf16: Vec<u8> = PLAIN.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(plain.found(&utf16).is_some());
}

fn collect(directory: &std::path::Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            files.push((path.display().to_string(), bytes));
        }
    }
}
