//! What programs exchange beside messages, against the real daemon: a reader of signals that falls behind, and
//! key bundles that many fetch at once.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

mod support;

use std::collections::BTreeSet;

use base64ct::{Base64, Encoding as _};
use downstream::protocol::keys::{DH_KEY_LEN, DH_POOL, POST_QUANTUM_KEY_LEN, POST_QUANTUM_POOL};
use support::{Client, Daemon, Home, Link};

fn register(daemon: &Daemon, name: &str) -> Client {
    let mut client = Client::connect(daemon.address());
    client.ask(&format!("/register {name} password-{name}"), &format!("OK register user={name}"));
    client
}

fn login(daemon: &Daemon, name: &str) -> Client {
    let mut client = Client::connect(daemon.address());
    client.ask(&format!("/login {name} password-{name}"), &format!("OK login user={name} unread=<NUM>"));
    client
}

/// The number of a line `* signal ID …` or `- signal ID …`.
fn number(line: &str) -> u64 {
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    assert_eq!(words[1], "signal", "{}", &line[..line.len().min(100)]);
    words[2].parse().unwrap()
}

#[test]
fn a_reader_that_falls_behind_gets_every_signal_that_still_waits() {
    const SIGNALS: usize = 160;
    let home = Home::new("");
    let daemon = home.start();
    let mut slow = register(&daemon, "slow");
    let mut loud = register(&daemon, "loud");
    slow.pause();
    // Far more than the outbound limit and what the kernels buffer; messages in between.
    let filler = "A".repeat(60_000);
    let mut ids = Vec::new();
    let mut messages = 0;
    let mut send = |ids: &mut Vec<u64>, body: &str| {
        let got = loud.ask(&format!("/signal slow e2e:{body}"), "OK signal id=<ID:id> time=<TIME>");
        ids.push(got["id"].parse().unwrap());
        if ids.len().is_multiple_of(3) {
            loud.ask(&format!("/msg slow {}", ids.len()), "OK msg id=<ID> time=<TIME> to=slow peer=online");
            messages += 1;
        }
    };
    for _ in 0..SIGNALS {
        send(&mut ids, &filler);
    }
    // Another device takes some of them meanwhile, near the end, where they cannot have been sent yet.
    let mut other = login(&daemon, "slow");
    let taken: BTreeSet<u64> = ids[SIGNALS - 40..].iter().copied().step_by(2).collect();
    for id in &taken {
        other.say(&format!("/ack signals {id}"));
        other.until(&format!("OK ack target=signals id={id}"));
    }
    slow.resume();
    let waiting = SIGNALS - taken.len();
    let (mut got, mut live, mut said) = (Vec::new(), 0, 0);
    while got.len() < waiting + live {
        let line = slow.line().unwrap();
        if line.starts_with("* signal ") {
            got.push(number(&line));
        } else if line.starts_with("* msg ") {
            said += 1;
        } else {
            assert!(line.starts_with("* login "), "{}", &line[..line.len().min(100)]);
        }
        // Live ones come while it is catching up.
        if got.len() == waiting / 2 && live == 0 {
            live = 20;
            for _ in 0..live {
                send(&mut ids, "QUJD");
            }
        }
    }
    let expected: Vec<u64> = ids.iter().copied().filter(|id| !taken.contains(id)).collect();
    assert_eq!(got, expected, "each once, and in order");
    // Nothing was acknowledged by being read; all of it still waits.
    slow.say("/signals");
    let mut rows = Vec::new();
    loop {
        let page = slow.until("OK signals count=<NUM> more=<WORD>");
        said += page.iter().filter(|line| line.starts_with("* msg ")).count();
        rows.extend(page.iter().filter(|line| line.starts_with("- ")).map(|line| number(line)));
        if page.last().unwrap().ends_with("more=no") {
            break;
        }
        slow.say(&format!("/signals after={}", rows.last().unwrap()));
    }
    assert_eq!(rows, expected);
    slow.say("/ping done");
    said += slow.until("OK ping :done").iter().filter(|line| line.starts_with("* msg ")).count();
    assert_eq!(said, messages);
}

const DEVICE: [u8; 16] = [0xd1; 16];

/// `/keys put` of a record.
fn put(kind: u8, body: &[u8]) -> String {
    format!("/keys put {}", Base64::encode_string(&[&[1, kind], DEVICE.as_slice(), body].concat()))
}

/// A prekey with this id.
fn key(id: u32, len: usize) -> Vec<u8> {
    [id.to_be_bytes().to_vec(), vec![0; len - 4]].concat()
}

fn id(key: &[u8]) -> u32 {
    u32::from_be_bytes(key[..4].try_into().unwrap())
}

/// The one-time keys of a bundle, X25519 and ML-KEM, and the last-resort key where that stood in.
fn one_time(bundle: &[u8]) -> (Option<u32>, Option<u32>, Option<u32>) {
    let certificate = usize::from(u16::from_be_bytes(bundle[..2].try_into().unwrap()));
    let rest = &bundle[2 + certificate + DH_KEY_LEN..];
    let (dh, rest) = match rest[0] {
        0 => (None, &rest[1..]),
        _ => (Some(id(&rest[1..])), &rest[1 + DH_KEY_LEN..]),
    };
    assert_eq!(rest.len(), 1 + POST_QUANTUM_KEY_LEN, "exactly one ML-KEM key");
    let post_quantum = Some(id(&rest[1..]));
    if rest[0] == 0 { (dh, post_quantum, None) } else { (dh, None, post_quantum) }
}

#[test]
fn no_one_time_key_is_given_away_twice_and_none_is_lost() {
    const LAST_RESORT: u32 = 2;
    const ACCOUNTS: usize = 13;
    const FETCHES: usize = 9;
    let home = Home::new("");
    let daemon = home.start();
    let mut bob = register(&daemon, "bob");
    let certificate = [[1, 0x10, 3].as_slice(), b"bob", &[0; 192]].concat();
    let (dh, post_quantum) = (100..100 + DH_POOL as u32, 1000..1000 + POST_QUANTUM_POOL as u32);
    let dh_keys: Vec<u8> = dh.clone().flat_map(|id| key(id, DH_KEY_LEN)).collect();
    let post_quantum_keys: Vec<u8> = post_quantum.clone().flat_map(|id| key(id, POST_QUANTUM_KEY_LEN)).collect();
    for (kind, body) in [
        (0x10, certificate),
        (0x12, key(1, DH_KEY_LEN)),
        (0x15, key(LAST_RESORT, POST_QUANTUM_KEY_LEN)),
        (0x13, dh_keys),
        (0x14, post_quantum_keys),
    ] {
        bob.ask(&put(kind, &body), "OK keys device=<WORD> opk=<NUM> pqk=<NUM>");
    }
    // Each account on two connections, all at the same time.
    let mut clients: Vec<Client> = Vec::new();
    for n in 0..ACCOUNTS {
        clients.push(register(&daemon, &format!("user{n}")));
        clients.push(login(&daemon, &format!("user{n}")));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let fetches = if n % 2 == 0 { FETCHES / 2 } else { FETCHES - FETCHES / 2 };
        client.send("/keys get bob\n".repeat(fetches).as_bytes());
    }
    let (mut used_dh, mut used_pq, mut stood_in) = (Vec::new(), Vec::new(), 0);
    for (n, client) in clients.iter_mut().enumerate() {
        for _ in 0..if n % 2 == 0 { FETCHES / 2 } else { FETCHES - FETCHES / 2 } {
            let lines = client.until("OK keys user=bob devices=1");
            let row = lines.iter().find_map(|line| line.strip_prefix("- keys bob ")).unwrap();
            let bundle = Base64::decode_vec(row.split_once(' ').unwrap().1).unwrap();
            let (dh, post_quantum, last) = one_time(&bundle);
            used_dh.extend(dh);
            used_pq.extend(post_quantum);
            if let Some(last) = last {
                assert_eq!(last, LAST_RESORT);
                stood_in += 1;
            }
        }
    }
    used_dh.sort_unstable();
    used_pq.sort_unstable();
    assert_eq!(used_dh, dh.collect::<Vec<u32>>(), "each once, and all of them");
    assert_eq!(used_pq, post_quantum.collect::<Vec<u32>>(), "each once, and all of them");
    assert_eq!(stood_in, ACCOUNTS * FETCHES - POST_QUANTUM_POOL, "then the key of last resort");
    // The owner heard of it, until there was nothing more to hear.
    bob.say("/keys status");
    let heard = bob.until("OK keys devices=1");
    let low = heard.iter().filter(|line| line.starts_with("* keys-low ")).count();
    assert!((1..=50).contains(&low), "{low} times");
    let device = "d1".repeat(16);
    assert!(heard.contains(&format!("* keys-low device={device} opk=0 pqk=0")), "{heard:?}");
    assert!(heard.contains(&format!("- keys-status {device} opk=0 pqk=0")), "{heard:?}");
}
