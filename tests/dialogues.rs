//! Dialogues that a person could have typed, against the real daemon over real TLS. The files in
//! `tests/dialogues/` say how they are read in `tests/support/script.rs`.
#![cfg(feature = "daemon")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues")
}

macro_rules! dialogues {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                support::dialogue::run(&directory().join(concat!(stringify!($name), ".txt")));
            }
        )*

        #[test]
        fn every_file_is_run() {
            let listed: BTreeSet<String> = [$(concat!(stringify!($name), ".txt")),*].map(str::to_owned).into();
            let there = std::fs::read_dir(directory()).unwrap();
            let there: BTreeSet<String> = there.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
            assert_eq!(listed, there);
        }
    };
}

dialogues! {
    ack_auto
    ack_manual
    admin
    admin_shutdown
    basic
    before_login_limit
    certs
    e2e_rooms
    fetch
    fetch_unread
    files
    files_limits
    files_off
    files_resume
    files_rooms
    files_wrong
    half_close
    keys
    keys_limits
    lines
    login
    login_strict
    login_throttled
    login_unread
    message_rate
    moderation
    msg
    msg_list
    passwd
    people
    post
    private_rooms
    profile
    receipts
    register
    register_closed
    register_invite
    register_throttled
    restart
    rooms
    rosters
    rosters_rate
    signals
    signals_limits
    signals_rate
    tokens
    typing
    unregister
}
