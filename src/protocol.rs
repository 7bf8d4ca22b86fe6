//! The wire, both directions, for the server and its clients alike.
//!
//! A line from a client is cut out of the byte stream by [`LineSplitter`], read by [`request::parse`]
//! and described by the table in [`verb`]; a line from the server is written by [`reply`] and read by
//! [`answer`]. Names, labels and times are newtypes whose parser is the only constructor.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod answer;
pub mod envelope;
pub mod file;
pub mod keys;
pub mod line;
pub mod name;
pub mod reply;
pub mod request;
pub mod text;
pub mod time;
pub mod verb;

pub use answer::{
    ChunkLine, Fields, FileLine, Hello, Malformed, MessageLine, ServerLine, SignalLine, UnreadLine, UploadLine,
};
pub use envelope::is_envelope;
pub use file::{FileId, FileName};
pub use keys::{DeviceName, KeyRecord, KeyUpload, PoolKind, PrekeyBytes};
pub use line::{LineFault, LineSplitter};
pub use name::{Label, NameInvalid, PostKey, RoomName, Target, UserName};
pub use reply::{Code, Head, Line};
pub use request::{Act, Password, ProfileChange, Request, Show};
pub use text::{Escaped, escaped};
pub use time::Timestamp;

/// The protocol that the greeting announces.
pub const PROTOCOL: &str = "downstream/1";
/// ALPN identifier; a client may offer it, none must.
pub const ALPN: &[u8] = b"downstream/1";
/// The port where clients look first.
pub const DEFAULT_PORT: u16 = 7667;
/// Longest line of a logged-in client, ending included: a body of [`MAX_BODY`] with a hundred targets
/// fits, and a connection's input buffer stays below a quarter of a megabyte.
pub const MAX_LINE: usize = 131_072;
/// Longest line before login, ending included: enough for the longest password, quoted and escaped, and
/// little enough that thousands of strangers cost nothing.
pub const MAX_LINE_BEFORE_LOGIN: usize = 4096;
/// Longest message body, in bytes.
pub const MAX_BODY: usize = 98_304;
/// Longest topic, reason or away text, in bytes: they are repeated to everybody and in every list, and two
/// lines of a terminal are enough.
pub const MAX_TEXT: usize = 1024;
/// Most targets of one `/msg`.
pub const MAX_TARGETS: usize = 100;
