//! What the operator decides about the core's behaviour. Made by the configuration, replaced as a
//! whole by a reload.

use std::time::Duration;

use crate::ops::FileLimits;

/// Who may make an account over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Everybody.
    Open,
    /// Who has an invitation code.
    Invite,
    /// Nobody; the operator adds accounts on the machine.
    Closed,
}

impl Registration {
    /// As the configuration and the greeting name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Registration::Open => "open",
            Registration::Invite => "invite",
            Registration::Closed => "closed",
        }
    }
}

/// The core's settings. A rate, a count or a deadline of zero or `None` is switched off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The server's name in the greeting; no spaces.
    pub server_name: String,
    /// Who may register.
    pub registration: Registration,
    /// Live sessions of one account; at least 1.
    pub sessions_per_account: usize,
    /// Sustained rate of message targets of one account.
    pub messages_per_second: u32,
    /// Message targets that an account may send at once.
    pub message_burst: u32,
    /// Failed logins in one minute, for an address and for an account.
    pub logins_per_minute: u32,
    /// New accounts in one hour from one address.
    pub registrations_per_hour: u32,
    /// How long a connection may take to log in.
    pub login_timeout: Option<Duration>,
    /// How long a logged-in session may send nothing.
    pub idle_timeout: Option<Duration>,
    /// Bytes queued for one session beyond which live messages wait in the log; at least 65536.
    pub outbound_bytes: usize,
    /// Age in days at which messages are deleted.
    pub retention_days: Option<u32>,
    /// Most bytes of one file; 0: no files.
    pub max_file: u64,
    /// Bytes that the files of an account, and of all, may take.
    pub file_limits: FileLimits,
    /// Hours after which an upload that neither grows nor is announced again is given up.
    pub partial_hours: Option<u32>,
    /// Age in days at which the bytes of files are deleted.
    pub file_days: Option<u32>,
}

/// How much faster than messages an account may make, enter, leave and change rooms. Each such change is
/// told to everybody in the room, so that it needs a limit; scripts that set up dozens of rooms do not meet
/// this one. Off where the rate of messages is.
const CHANGES_PER_MESSAGE: u32 = 5;
/// The same for what may come at once.
const CHANGE_BURST_PER_MESSAGE: u32 = 20;

/// How much faster than messages an account may use what programs exchange beside them: signals, records put
/// into the key directory, look-ups in it. Off where the rate of messages is.
const EXCHANGES_PER_MESSAGE: u32 = 10;
/// The same for what may come at once. A client that changes its key in a room of 200 people with two devices
/// each looks up to 200 accounts and sends 400 signals; and as many signals as may wait for one receiver fit.
const EXCHANGE_BURST_PER_MESSAGE: u32 = 40;
/// Bytes of one exchange: the signal that carries a room's key, with the start of a session in front of it, has
/// some 3 KiB. What is longer counts as several, so that the rate bounds bytes too.
pub const EXCHANGE_BYTES: usize = 4096;

impl Settings {
    /// Sustained rate and burst of exchanges of one account.
    pub fn exchange_rate(&self) -> (u32, u32) {
        (
            self.messages_per_second.saturating_mul(EXCHANGES_PER_MESSAGE),
            self.message_burst.saturating_mul(EXCHANGE_BURST_PER_MESSAGE),
        )
    }

    /// Sustained rate and burst of changes to rooms by one account.
    pub fn change_rate(&self) -> (u32, u32) {
        (
            self.messages_per_second.saturating_mul(CHANGES_PER_MESSAGE),
            self.message_burst.saturating_mul(CHANGE_BURST_PER_MESSAGE),
        )
    }
}
