//! The slot files: how a passphrase gives the key of the store.
//!
//! There is one slot: `passphrase.slot`, or `machine.slot` for machines, whose passphrase is empty.
//! Both are there only while one takes the other's place. A passphrase is then asked for, and what was
//! begun ends at the next opening with the machine's slot removed: the change to a passphrase is
//! complete, one from it was not made.

use std::fs;
use std::path::{Path, PathBuf};

use downstream::e2e::keyslot::{Cost, Dek};
use zeroize::Zeroizing;

use super::vault::OsRandom;
use super::{StoreError, home};

const PASSPHRASE_SLOT: &str = "passphrase.slot";
const MACHINE_SLOT: &str = "machine.slot";

/// What a person types to open the store; not empty. Wiped when dropped, not shown by `Debug`.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// A passphrase, as it was typed; `None` if it is empty.
    pub fn new(typed: Zeroizing<Vec<u8>>) -> Option<Passphrase> {
        (!typed.is_empty()).then_some(Passphrase(typed))
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase")
    }
}

/// Which slots a home has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slots {
    None,
    Machine,
    /// One for a passphrase; perhaps a machine's beside it.
    Passphrase,
}

pub(super) fn found(home: &Path) -> Result<Slots, StoreError> {
    if home::exists(&home.join(PASSPHRASE_SLOT))? {
        return Ok(Slots::Passphrase);
    }
    let machine = home::exists(&home.join(MACHINE_SLOT))?;
    Ok(if machine { Slots::Machine } else { Slots::None })
}

fn path(home: &Path, passphrase: Option<&Passphrase>) -> PathBuf {
    home.join(if passphrase.is_some() { PASSPHRASE_SLOT } else { MACHINE_SLOT })
}

/// Gives the key of the store. Takes as long as the slot says, by default a good tenth of a second.
pub(super) fn open(home: &Path, passphrase: Option<&Passphrase>) -> Result<Dek, StoreError> {
    let file = match (found(home)?, passphrase) {
        (Slots::None, _) => return Err(StoreError::NotThere(home.to_owned())),
        (Slots::Machine, Some(_)) => return Err(StoreError::NoPassphrase),
        (Slots::Machine, None) => MACHINE_SLOT,
        (Slots::Passphrase, None) => return Err(StoreError::NeedsPassphrase),
        (Slots::Passphrase, Some(_)) => PASSPHRASE_SLOT,
    };
    let file = home.join(file);
    let slot = fs::read(&file).map_err(StoreError::io(&file))?;
    Ok(Dek::from_slot(&slot, passphrase.map_or(&[], |passphrase| &passphrase.0))?)
}

/// Writes the slot of a passphrase, or the machine's, in place of one of the same kind. `cost` is what a
/// guess at the passphrase costs; there is nothing to guess at the machine's.
pub(super) fn write(home: &Path, dek: &Dek, passphrase: Option<&Passphrase>, cost: Cost) -> Result<(), StoreError> {
    let (secret, cost): (&[u8], _) = match passphrase {
        Some(passphrase) => (&passphrase.0, cost),
        None => (&[], Cost::FLOOR),
    };
    let slot = dek.to_slot(secret, cost, &mut OsRandom)?;
    home::write(&path(home, passphrase), &slot)
}

/// Removes the slot of the other kind.
pub(super) fn remove_other(home: &Path, passphrase: Option<&Passphrase>) -> Result<(), StoreError> {
    let other = if passphrase.is_some() { MACHINE_SLOT } else { PASSPHRASE_SLOT };
    home::remove(&home.join(other))
}

/// Ends what was interrupted: a machine's slot beside a passphrase's goes, and so do unfinished files.
/// To be called under the lock. What is there now counts, not what was there when the passphrase was
/// checked: another process may have left the machine's slot as the only one since.
pub(super) fn tidy(home: &Path) -> Result<(), StoreError> {
    if found(home)? == Slots::Passphrase {
        home::remove(&home.join(MACHINE_SLOT))?;
    }
    for slot in [PASSPHRASE_SLOT, MACHINE_SLOT] {
        home::remove(&home::unfinished(&home.join(slot)))?;
    }
    Ok(())
}
