//! The lines of an upload, for a session by hand.

use downstream::e2e::armour;
use downstream::protocol::Target;
use downstream::protocol::file::CHUNK_MAX;
use zeroize::Zeroizing;

use super::Sending;
use crate::app::{Client, Content};
use crate::error::Failure;
use crate::store::Stage;

impl Client<'_> {
    /// Prints the lines of an upload from `offset` on, then those of the message that announces it. It must
    /// have been begun: what the server was told of is what is printed.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn print_upload(
        &mut self,
        sending: Sending<'_>,
        file: &str,
        offset: u64,
        print: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Sending { target, plain, .. } = sending;
        let Some(work) = self.find_upload(sending)? else {
            return Err(Failure::usage("this file was not begun for this target").hint("first without --file"));
        };
        if !plain {
            // Before gigabytes are printed for nothing.
            self.try_sealing(target)?;
        }
        let length = work.length();
        if offset > length {
            return Err(Failure::usage(format!("--offset {offset} is behind the end: {length} bytes are sent")));
        }
        let body = work.body()?;
        let mut bytes = Zeroizing::new(vec![0; CHUNK_MAX]);
        let mut at = offset;
        while at < length {
            let left = usize::try_from(length - at).map_or(CHUNK_MAX, |left| left.min(CHUNK_MAX));
            let piece = bytes.get_mut(..left).unwrap_or_default();
            body.read_at(at, piece)?;
            print(&format!("/chunk {file} {at} {}", armour::base64(piece)))?;
            at += left as u64;
        }
        let Stage::Sealed(descriptor) = work.upload.stage.clone() else { return Ok(()) };
        let content = Content::File(descriptor);
        let lines = match target {
            Target::User(user) => self.seal_direct(user, content)?,
            Target::Room(room) => self.seal_room(room, content, false)?,
        };
        for (user, body) in &lines.signals {
            print(&format!("/signal {user} {body}"))?;
        }
        // Under the upload's own key: printed and typed twice, it is there once.
        print(&format!("/post {target} {} {}", work.upload.key.as_str(), lines.body))
    }
}
