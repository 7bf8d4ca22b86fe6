//! Tests of the store as a whole.

mod damage;
mod files;
mod lines;
mod migration;
mod state;
#[path = "../../../../tests/e2e_common/mod.rs"]
mod world;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use downstream::e2e::inner::{Body, Conversation, Inner, Plain};
use downstream::e2e::keyslot::Cost;
use downstream::e2e::name::{Address, ConvId, DeviceId, MsgId, User};
use downstream::protocol::{Target, UserName};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;
use crate::event::Mark;
use crate::store::StoreError;

/// What the tests' transactions return.
type Done<T = ()> = Result<T, StoreError>;

/// A home that goes with the test.
fn temporary() -> TempDir {
    let private = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(private).tempdir().unwrap()
}

/// A store without a passphrase in a new home.
fn fresh() -> (TempDir, Store) {
    let home = temporary();
    let store = Store::create(home.path(), None, Cost::FLOOR).unwrap();
    (home, store)
}

/// Another process on the same home.
fn again(home: &TempDir) -> Store {
    Store::open(home.path(), None).unwrap()
}

/// A transaction in which nothing can fail.
fn with<T>(store: &mut Store, f: impl FnOnce(&mut Tx<'_>) -> T) -> T {
    store.transact(|tx| Done::Ok(f(tx))).unwrap()
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
}

fn target(name: &str) -> Target {
    Target::parse(name).unwrap()
}

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn device(name: &str, id: u8) -> Address {
    Address { user: User::parse(name).unwrap(), device: DeviceId([id; 16]) }
}

/// An inner message with a text; `n` makes its id.
fn inner(n: u32, text: &str) -> Plain {
    let mut msg_id = [0; 16];
    msg_id[..4].copy_from_slice(&n.to_be_bytes());
    Inner {
        sent_ms: 1,
        msg_id: MsgId(msg_id),
        seq: 1,
        prev: [0; 32],
        conversation: Conversation::Direct(ConvId([5; 16])),
        dl_version: 1,
        body: Body::Text(text.into()),
    }
    .to_bytes()
}

/// A sealed message of bob's first device in a conversation.
fn entry(to: &str, id: u64, text: &str) -> Entry {
    Entry {
        target: target(to),
        id: Some(id),
        time_ms: 1_000_000_u64.saturating_add(id),
        sender: user("bob"),
        what: What::Sealed { device: DeviceId([1; 16]), inner: inner(id as u32, text) },
        marks: vec![Mark::Weak, Mark::Late],
    }
}

/// Every byte of every file of a home.
fn bytes_of(home: &Path) -> Vec<u8> {
    let mut files: Vec<_> = std::fs::read_dir(home).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().flat_map(|path| std::fs::read(path).unwrap()).collect()
}

/// A copy of a home, as a backup makes it or a power cut leaves it.
fn copy_of(home: &Path) -> TempDir {
    let copy = temporary();
    for file in std::fs::read_dir(home).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}
