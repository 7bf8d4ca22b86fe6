//! What earlier commands have left: gone on with, or given up.

use downstream::e2e::armour;
use downstream::protocol::{Fields, UploadLine};

use super::{Origin, Sending, Work};
use crate::app::receive::account;
use crate::app::{Client, notice};
use crate::error::Failure;
use crate::spool::{self, Opened, Spool};
use crate::store::{Source, Stage, Upload};

impl Client<'_> {
    /// Every upload that is not finished.
    pub(crate) fn uploads(&mut self) -> Result<Vec<Upload>, Failure> {
        self.sweep_spool()?;
        self.transact(|tx| Ok(tx.uploads()?))
    }

    /// Takes an upload to go on with it; `None` if another process works at it, or has just finished it.
    /// What was being sealed when a process died is sealed anew, under another key, if its source is still
    /// there.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn take_upload(&mut self, id: &str, max_file: Option<u64>) -> Result<Option<Work>, Failure> {
        let Some(held) = Spool::of(self.store.home()).try_take(id)? else { return Ok(None) };
        let Some(upload) = self.transact(|tx| Ok(tx.upload(id)?))? else { return held.remove().map(|()| None) };
        let work = Work { upload, held };
        if work.upload.stage != Stage::Preparing && work.is_whole()? {
            if work.body().is_ok() {
                return Ok(Some(work));
            }
            let Upload { name, target, .. } = work.upload.clone();
            let text = format!("{name} for {target} has changed since its upload was begun: send it again");
            self.say(&notice("upload-dropped", Some(target.as_str()), text))?;
            self.withdraw(&work.upload)?;
            return self.drop_upload(work).map(|()| None);
        }
        let Upload { target, name, mime, plain, by_hand, source, .. } = work.upload.clone();
        self.drop_upload(work)?;
        let again =
            source.filter(|source| matches!(spool::open(&source.path), Ok(Opened::File(_, now)) if now == *source));
        let Some(Source { path, .. }) = again else {
            let text = format!("{name} for {target} was not read to its end, and cannot be read again: send it again");
            self.say(&notice("upload-dropped", Some(target.as_str()), text))?;
            return Ok(None);
        };
        let (name, mime) = (Some(name.as_str()), Some(mime.as_str()));
        let from = Origin::Path(&path, false);
        self.begin_upload(Sending { target: &target, name, mime, plain, by_hand, from }, max_file).map(Some)
    }

    /// Gives an upload up: what is here of it, and, with a server, what is there.
    ///
    /// # Errors
    /// [`Failure`]. Its message stands in the outbox already: it is sent.
    pub(crate) fn give_up_upload(&mut self, id: &str) -> Result<Upload, Failure> {
        let held = Spool::of(self.store.home()).take(id)?;
        let Some(upload) = self.transact(|tx| Ok(tx.upload(id)?))? else {
            held.remove()?;
            return Err(Failure::failed("it has just been finished"));
        };
        if matches!(upload.stage, Stage::Announced(_)) {
            return Err(Failure::failed(format!("{} is sent, and only its message waits in the outbox", upload.name))
                .hint("`dsc resend` sends it"));
        }
        let work = Work { upload, held };
        if !self.server.is_offline() && !work.upload.by_hand {
            self.withdraw(&work.upload)?;
        }
        let upload = work.upload.clone();
        self.drop_upload(work)?;
        Ok(upload)
    }

    /// Has the server forget what it has of an upload. What it does not know is no failure, nor is a target that
    /// takes nothing from this account any more: it is not asked by the target, which it would refuse to name.
    fn withdraw(&mut self, upload: &Upload) -> Result<(), Failure> {
        let sha256 = match &upload.stage {
            Stage::Sealed(file) => armour::hex(&file.blob_id),
            Stage::Clear { sha256, .. } => armour::hex(sha256),
            Stage::Preparing | Stage::Announced(_) => return Ok(()),
        };
        let me = self.transact(|tx| account(tx))?;
        let (rows, _) = self.command(&format!("/files sha256={sha256}"))?;
        for row in &rows {
            let Ok(line) = UploadLine::read(&Fields::parse(row)) else { continue };
            // In clear, what is whole is in the conversation. Sealed, nobody was told how to open it.
            let ours = (&line.sender, &line.target) == (&me, &upload.target)
                && (line.partial.is_some() || matches!(upload.stage, Stage::Sealed(_)));
            if ours {
                match self.ask(&format!("/drop-file {}", line.file))?.reply {
                    Err(refusal) if refusal.code != "not-found" => return Err(refusal.into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    pub(super) fn drop_upload(&mut self, work: Work) -> Result<(), Failure> {
        self.transact(|tx| {
            tx.drop_upload(&work.upload.id);
            Ok(())
        })?;
        work.held.remove()
    }

    /// Removes what processes that died have left in the spool: files without a record.
    pub(super) fn sweep_spool(&mut self) -> Result<(), Failure> {
        let spool = Spool::of(self.store.home());
        for id in spool.ids()? {
            if self.transact(|tx| Ok(tx.upload(&id)?))?.is_some() {
                continue;
            }
            if let Some(held) = spool.try_take(&id)? {
                // Its record may have come between the two looks.
                if self.transact(|tx| Ok(tx.upload(&id)?))?.is_none() {
                    held.remove()?;
                }
            }
        }
        Ok(())
    }
}
