//! The tools of the attack tests: a relay that does evil between client and daemon ([`relay`]), a device in
//! the test's own hands ([`lab`]), the encryption by hand for what no honest program would seal ([`forge`],
//! [`file`]), and the real `dsc` ([`dsc`]).

pub(crate) mod dsc;
pub(crate) mod file;
pub(crate) mod forge;
pub(crate) mod lab;
pub(crate) mod relay;
pub(crate) mod stage;

pub(crate) use self::{
    dsc::Dsc,
    file::{Blob, Inbox},
    lab::{Keys, Lab},
    relay::{Caught, Evil, Verdict, Way},
    stage::{Directory, Stage},
};

use crate::common::e2e::time::Now;

/// The clock of this machine: the devices of the attack tests live in the same time as `dsc`.
pub(crate) fn now() -> Now {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Now::from_ms(u64::try_from(since.as_millis()).unwrap())
}
