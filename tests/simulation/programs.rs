//! What programs type: signals, keys, rosters.

use base64ct::{Base64, Encoding as _};
use downstream::ops::AccountId;
use downstream::protocol::DeviceName;
use downstream::protocol::keys::{DH_KEY_LEN, POST_QUANTUM_KEY_LEN};

use super::client::{People, Typed};
use super::oracle::{Kind, Oracle};
use super::rng::Rng;

/// How often each line of [`People::exchange`] comes.
const WEIGHTS: [usize; 11] = [140, 8, 40, 60, 60, 5, 8, 40, 16, 8, 3];

impl People {
    /// A line of a program of `me`.
    pub fn exchange(&mut self, rng: &mut Rng, me: &str, oracle: &Oracle) -> Typed {
        let model = &oracle.model;
        let account = model.accounts.iter().find(|(_, account)| account.name == me).map(|(id, _)| *id);
        let known: Vec<&str> =
            model.accounts.values().filter(|account| !account.erased).map(|account| &*account.name).collect();
        let name = match rng.below(12) {
            0 => self.name(rng),
            1..4 => me.to_owned(),
            _ => rng.pick(&known).map_or_else(String::new, |name| (*name).to_owned()),
        };
        let other = |text: String| (text, Kind::Other);
        let (text, kind) = match rng.weighted(&WEIGHTS) {
            0 => {
                let body = self.envelope(rng);
                (format!("signal {name} {body}"), Kind::Signal { user: name, body })
            }
            1 => {
                let after = if rng.one_in(3) { format!(" after={}", rng.below(20)) } else { String::new() };
                (format!("signals{after}"), Kind::Rows)
            }
            2 => {
                let waiting: Vec<u64> =
                    account.iter().flat_map(|id| model.exchanges.waiting(*id)).map(|(id, _)| id).collect();
                let id = rng.pick(&waiting).copied().filter(|_| !rng.one_in(10)).unwrap_or(rng.below(30) as u64);
                other(format!("ack signals {id}"))
            }
            3 => {
                let device = device(rng);
                let wanted = account.and_then(|account| model.exchanges.wanted(account, device));
                other(format!("keys put {}", self.record(rng, device, wanted)))
            }
            4 => {
                let device = if rng.one_in(4) { format!(" device={}", device(rng)) } else { String::new() };
                let only = if rng.one_in(4) { " only=certs" } else { "" };
                (format!("keys get {name}{device}{only}"), Kind::Rows)
            }
            5 => ("keys status".to_owned(), Kind::Rows),
            6 => {
                let after = if rng.one_in(3) { format!(" after={}", rng.below(8)) } else { String::new() };
                (format!("roster {}{after}", self.sealed(rng, account, oracle)), Kind::Rows)
            }
            7 => {
                let room = self.sealed(rng, account, oracle);
                let id = account.and_then(|account| model.room_of(account, &room));
                let last = id.map_or(0, |id| model.exchanges.last_epoch(id));
                let epoch = if rng.one_in(5) { rng.below(last + 3) } else { last + 1 };
                let entry = Base64::encode_string(&self.number().to_be_bytes().repeat(rng.within(1, 100)));
                other(format!("roster-add {room} {epoch} {entry}"))
            }
            8 => other(format!("create {} e2e", self.room(rng))),
            9 => other(format!("join {}", self.room(rng))),
            _ => other(format!("kick {} {name}", self.sealed(rng, account, oracle))),
        };
        let (verb, rest) = text.split_once(' ').map_or((text.as_str(), String::new()), |(v, r)| (v, format!(" {r}")));
        self.labelled(verb, &rest, kind)
    }

    /// A room that has a roster, mostly one that the account is in.
    fn sealed(&self, rng: &mut Rng, account: Option<AccountId>, oracle: &Oracle) -> String {
        let rooms = oracle.model.conversations.values().filter_map(|found| {
            let room = found.room.as_ref().filter(|room| room.e2e)?;
            account.is_some_and(|account| found.members.contains(&account)).then(|| room.name.to_string())
        });
        let rooms: Vec<String> = rooms.collect();
        rng.pick(&rooms).filter(|_| !rng.one_in(8)).cloned().unwrap_or_else(|| self.room(rng))
    }

    /// An envelope that no other signal has; now and then what is none.
    fn envelope(&mut self, rng: &mut Rng) -> String {
        let n = self.number();
        let len = match rng.below(20) {
            0..2 => rng.below(self.body_max),
            2..6 => rng.below(self.body_max.min(30_000)),
            _ => rng.below(400),
        };
        let prefix = if rng.one_in(25) { "E2E:" } else { "e2e:" };
        format!("{prefix}{}{n:012}", "0".repeat(len.saturating_sub(16) / 4 * 4))
    }

    /// A record of `/keys put`, or again one that somebody has put. `wanted` is the type of one that the device
    /// lacks for a bundle.
    fn record(&mut self, rng: &mut Rng, device: DeviceName, wanted: Option<u8>) -> String {
        if let Some(again) = rng.pick(&self.records).filter(|_| rng.one_in(5)) {
            return again.clone();
        }
        let n = self.number() as u32;
        let key = |i: usize, len: usize| {
            let id = n * 128 + i as u32 + 1;
            [id.to_be_bytes().to_vec(), vec![n as u8; len - 4]].concat()
        };
        let keys = |count: usize, len: usize| (0..count).flat_map(|i| key(i, len)).collect::<Vec<u8>>();
        let any = rng.below(24);
        let kind = match wanted {
            Some(0x10) => 0,
            Some(0x12) => 8,
            Some(_) => 20,
            None => any,
        };
        let (kind, body) = match if rng.one_in(4) { any } else { kind } {
            0..6 => (0x10, [vec![1, 0x10, 5], vec![u8::from(rng.one_in(12)); 197]].concat()),
            6 if rng.one_in(3) => (0x10, Vec::new()),
            6 | 7 => (0x11, [vec![1, 0x11, 5], vec![1; 42], vec![n as u8; 96]].concat()),
            8..12 => (0x12, key(0, DH_KEY_LEN)),
            12..17 => (0x13, keys(*rng.pick(&[1, 3, 20, 100]).unwrap_or(&1), DH_KEY_LEN)),
            17..20 => (0x14, keys(*rng.pick(&[1, 2, 5, 50]).unwrap_or(&1), POST_QUANTUM_KEY_LEN)),
            20..23 => (0x15, key(0, POST_QUANTUM_KEY_LEN)),
            _ => (0x13, vec![0; rng.below(300)]),
        };
        let text = Base64::encode_string(&[vec![1, kind], device.0.to_vec(), body].concat());
        self.records.push(text.clone());
        if self.records.len() > 60 {
            self.records.drain(..30);
        }
        text
    }
}

fn device(rng: &mut Rng) -> DeviceName {
    DeviceName([u8::from(rng.one_in(4)); 16])
}
