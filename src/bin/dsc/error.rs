//! Failures as the person at the terminal meets them: what went wrong, what to do, and the exit code.

use std::fmt;
use std::process::ExitCode;

/// Why `dsc` ends. The numbers are documented and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It did not work, for a reason that is none of the others.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// There is no session, list or roster yet; the message says what to type.
    NoSession = 3,
    /// An identity (an account's or the server's) is not the one that was pinned.
    IdentityChanged = 4,
    /// The server cannot be reached, or the connection was lost.
    Network = 5,
    /// The server said no.
    Refused = 6,
}

impl Exit {
    /// Every code with what it means, for the documents.
    pub const ALL: [(Exit, &str); 7] = [
        (Exit::Done, "done"),
        (Exit::Failed, "it did not work, for a reason that is none of the others"),
        (Exit::Usage, "the command line or the settings make no sense"),
        (Exit::NoSession, "there is no session, device list or roster yet; the message says what to type"),
        (Exit::IdentityChanged, "an account's or the server's identity is not the one that was pinned"),
        (Exit::Network, "the server cannot be reached, or the connection was lost"),
        (Exit::Refused, "the server said no"),
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A failure with its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong: one line, no final stop.
    pub message: String,
    /// What to do about it, if there is something.
    pub hint: Option<String>,
    /// The same may work a little later: the server is busy, or was asked too often.
    pub temporary: bool,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: None, temporary: false }
    }

    /// [`Exit::Failed`].
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message)
    }

    /// [`Exit::Usage`].
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// Nobody reads what is shown any more: the program ends quietly, as it would by a signal. What was not
    /// shown was not.
    pub fn closed() -> Failure {
        Failure::new(Exit::Done, "standard output was closed")
    }

    /// Whether this is [`Failure::closed`].
    pub fn is_closed(&self) -> bool {
        self.exit == Exit::Done
    }

    /// Whether a session that is meant to last goes on with a new connection after this.
    pub fn is_passing(&self) -> bool {
        self.exit == Exit::Network || self.temporary
    }

    /// With what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
