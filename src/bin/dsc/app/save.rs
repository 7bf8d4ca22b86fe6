//! `tail --save`: files are got as they come, a piece at a time, while messages go on being shown.
//!
//! A file waits from the transaction in which its message is taken in to the one in which its download ends: so
//! none is forgotten when the program ends in between, and none is got twice.

use std::path::Path;
use std::time::{Duration, Instant};

use downstream::protocol::UserName;

use super::download::{Fetching, To};
use super::take::After;
use super::{Client, notice};
use crate::error::{Exit, Failure};
use crate::folder::Folder;
use crate::store::{Entry, Save, Tx, What};

/// How long one step should take: messages wait for it.
const STEP: Duration = Duration::from_millis(200);
/// Bytes of one step: what a line of 1 Mbit/s carries in that time, and as much as is on its way at once.
const STEP_BYTES: (u64, u64) = (16 << 10, 16 << 20);

/// Has the file of an entry wait, if files are saved and it is news here.
pub(super) fn note(tx: &mut Tx<'_>, me: &UserName, entry: &Entry, after: &mut After) {
    if !tx.saves_files() || entry.what.blob().is_none() || is_own(tx, me, entry) {
        return;
    }
    if !tx.put_save(entry) {
        let id = entry.id.unwrap_or_default();
        let text = format!("too many files wait to be saved: {}/{id} is not; `dsc get-file` gets it", entry.target);
        after.events.push(notice("not-saved", Some(entry.target.as_str()), text));
    }
}

/// Whether an entry was sent from this device, or in clear by this account.
pub(super) fn is_own(tx: &Tx<'_>, me: &UserName, entry: &Entry) -> bool {
    let device = tx.state().map(|state| state.me.address().device);
    entry.sender == *me
        && match &entry.what {
            What::Sealed { device: by, .. } => Some(*by) == device,
            _ => true,
        }
}

/// Saves files. It outlives connections.
pub(crate) struct Saver {
    to: To,
    /// The largest that is saved, in bytes.
    most: u64,
    work: Option<(Save, Box<Fetching>)>,
    /// Bytes of the next step.
    step: u64,
}

impl Saver {
    /// Into a folder, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be.
    pub(crate) fn new(path: &Path, most: u64) -> Result<Saver, Failure> {
        let folder = Folder::open(path, true)?;
        let to = To::Folder { path: folder.path().to_owned(), make: true, name: None };
        let (least, _) = STEP_BYTES;
        Ok(Saver { to, most, work: None, step: least })
    }

    /// Does a little. Whether there is more to do at once.
    ///
    /// # Errors
    /// Of the connection, and of showing. What is wrong with a file is said, and the next one has its turn.
    pub(crate) fn step(&mut self, client: &mut Client<'_>) -> Result<bool, Failure> {
        let Some((save, work)) = &mut self.work else { return self.begin(client) };
        let begun = Instant::now();
        let moved = client.move_on(work, self.step);
        let took = begun.elapsed();
        let (least, most) = STEP_BYTES;
        if took < STEP / 2 {
            self.step = self.step.saturating_mul(2).min(most);
        } else if took > STEP * 2 {
            self.step = (self.step / 2).max(least);
        }
        match moved {
            Ok(false) => Ok(true),
            Ok(true) => {
                self.work = None;
                Ok(true)
            }
            Err(failure) => {
                let save = save.clone();
                self.pass_over(client, &save, failure)
            }
        }
    }

    fn begin(&mut self, client: &mut Client<'_>) -> Result<bool, Failure> {
        let Some(save) = client.transact(|tx| Ok(tx.saves().into_iter().next()))? else { return Ok(false) };
        match client.begin_download(&save.wanted, &self.to, Some((&save, self.most))) {
            Ok(work) => {
                self.work = work.map(|work| (save, work));
                Ok(true)
            }
            Err(failure) => self.pass_over(client, &save, failure),
        }
    }

    /// Says why a file is not saved, and waits for it no longer.
    fn pass_over(&mut self, client: &mut Client<'_>, save: &Save, failure: Failure) -> Result<bool, Failure> {
        if failure.exit == Exit::Network || failure.is_closed() {
            return Err(failure);
        }
        // Also where the server says "later": a file that it cannot read would hold up everything for ever.
        let failure = match failure.temporary {
            true => failure.hint(format!("`dsc get-file '{}'` tries again", save.wanted)),
            false => failure,
        };
        self.work = None;
        client.transact(|tx| {
            tx.drop_save(save);
            Ok(())
        })?;
        let why = failure.hint.iter().fold(failure.message.clone(), |why, hint| format!("{why}; {hint}"));
        client.say(&notice("not-saved", None, format!("{} is not saved: {why}", save.wanted)))?;
        Ok(true)
    }
}
