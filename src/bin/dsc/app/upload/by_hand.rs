//! The lines of an upload, for a session by hand.

use downstream::protocol::Target;
use downstream::protocol::file::CHUNK_MAX;

use super::Sending;
use super::work::Pieces;
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
        let mut pieces = Pieces::new(&body, file, offset..length, CHUNK_MAX);
        while let Some(line) = pieces.next()? {
            print(&line)?;
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
