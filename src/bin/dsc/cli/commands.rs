//! Every command with its arguments. What stands here as documentation is the help that people read. One file, in
//! the order of that help.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;
use downstream::protocol::{Target, UserName};

use super::values::{
    MessageRef, Room, Targets, file, file_name, file_number, media_type, one_line, size, target, ten_digits, user,
};
use crate::store::FileRef;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    // ---- account -----------------------------------------------------------------------------------
    /// Make an account on a server, with keys for this device
    ///
    /// Asks for what it was not told: the server, the name, a password for the account, and a passphrase
    /// for the store of keys on this machine. Then it makes the keys, publishes their public half, and
    /// keeps a token, so that the password is not needed again here.
    #[command(after_help = "\
Examples:
  dsc register --server chat.example.org --user alice
  dsc register --server chat.example.org --user bot --password-file pw --no-passphrase")]
    Register(Register),
    /// Log in to an account that exists, on this device
    ///
    /// Keeps a token, sealed in the store of keys, for later commands. An account that has other devices
    /// certifies this one with `dsc link`; one without keys gets them now.
    Login(NewStore),
    /// Give the token back to the server; keys and history stay
    Logout,
    /// Change the account's password
    ///
    /// Asks for the old and the new one, or reads them from the first and second line of --password-file.
    /// Every other session and token of the account ends; this device gets a new token.
    Passwd,
    /// Show the account, the server and this device
    Whoami,

    // ---- messages ----------------------------------------------------------------------------------
    /// Send a text to people and rooms, end to end encrypted
    ///
    /// The text is what stands behind the targets, several words joined by a space, or standard input. A
    /// message is kept until the server has stored it: a lost connection neither loses nor doubles it.
    #[command(after_help = "\
Examples:
  dsc send bob 'see you at 8'
  dsc send '#ops,bob' deployed
  uptime | dsc send '#ops'")]
    Send(Send),
    /// Show unread messages, or a page of a conversation
    ///
    /// Without TARGET, everything unread is shown and then counts as read. With one, the newest messages
    /// of that conversation, or those before or after a number.
    Fetch(Fetch),
    /// Show messages as they come, until interrupted
    ///
    /// Begins with what is unread. Reconnects by itself, without loss and without showing a message twice.
    Tail(Tail),
    /// List conversations with unread messages
    Unread {
        /// Also those without
        #[arg(long)]
        all: bool,
    },
    /// Search the history that this device keeps
    ///
    /// Finds messages that hold every one of the words, case ignored. The server takes no part in it.
    Search(Search),
    /// React to a message
    React {
        #[command(flatten)]
        message: MessageArg,
        /// The reaction, as in '+1'
        #[arg(value_name = "TEXT", required = true)]
        text: Vec<String>,
    },
    /// Replace the text of a message of one's own
    Edit {
        #[command(flatten)]
        message: MessageArg,
        /// The new text
        #[arg(value_name = "TEXT", required = true)]
        text: Vec<String>,
    },
    /// Take a message of one's own back
    ///
    /// Asks the readers' programs not to show it any more. Who has read it has read it.
    Delete {
        #[command(flatten)]
        message: MessageArg,
    },
    /// Send what is still in the outbox
    ///
    /// Messages that the server did not acknowledge wait there; every sending command tries them first.
    Resend,

    // ---- files -------------------------------------------------------------------------------------
    /// Send files to somebody or to a room, end to end encrypted
    ///
    /// Each file is sealed once, into the home, and sent from there: a lost connection costs what was on its
    /// way. Interrupted, the same command or `dsc resume` goes on where it stopped. Name, type and content are
    /// for the receivers; the server learns about how large the file is.
    #[command(after_help = "\
Examples:
  dsc send-file bob report.pdf photo.jpg
  dsc send-file '#ops' --tar logs/
  pg_dump shop | dsc send-file bob --name shop.sql -")]
    SendFile(SendFile),
    /// List the files on the server, of all conversations or of one
    ///
    /// With the names of those whose messages this device has opened, and what is on its way of one's own.
    Files {
        /// Only of this room or person
        #[arg(value_parser = target)]
        target: Option<Target>,
    },
    /// Get files, checked while they come
    ///
    /// A file goes into the folder that the settings or the desktop name for it, under its own name made safe;
    /// nothing is ever overwritten. One that is not what was sent leaves nothing behind. What was interrupted
    /// goes on with the same command, or with `dsc resume`.
    #[command(after_help = "\
Examples:
  dsc get-file bob/17
  dsc get-file '#ops/3' -o reports/
  dsc get-file bob/17 -o - | tar x")]
    GetFile(GetFile),
    /// Go on with transfers that were interrupted
    Resume(Resume),

    // ---- rooms -------------------------------------------------------------------------------------
    /// List rooms
    Rooms {
        /// Only those that match, as in 'dev-*'
        #[arg(value_parser = one_line)]
        glob: Option<String>,
    },
    /// Make a room, end to end encrypted
    ///
    /// Who is a member is a log that members sign; the server stores it and cannot change it.
    Create(Create),
    /// Enter a room
    Join {
        #[command(flatten)]
        room: RoomArg,
    },
    /// Leave a room
    Leave {
        #[command(flatten)]
        room: RoomArg,
        /// What the others are told
        #[arg(value_parser = one_line)]
        reason: Vec<String>,
    },
    /// List the members of a room, with what the signed roster says of them
    Members {
        #[command(flatten)]
        room: RoomArg,
    },
    /// Add somebody to a room
    Invite(RoomUser),
    /// Remove somebody from a room; an admin may invite them again
    Kick(Removal),
    /// Remove somebody from a room and keep them out
    Ban(Removal),
    /// Let somebody in again
    Unban(RoomUser),
    /// Make somebody an operator of a room
    Op(RoomUser),
    /// Make an operator a member like the others
    Deop(RoomUser),
    /// Show or set the topic of a room
    ///
    /// The server reads topics, also those of encrypted rooms.
    Topic {
        #[command(flatten)]
        room: RoomArg,
        /// The new topic
        #[arg(value_parser = one_line)]
        text: Vec<String>,
    },

    // ---- people ------------------------------------------------------------------------------------
    /// List accounts of the server
    Users {
        /// Only those that match, as in 'a*'
        #[arg(value_parser = one_line)]
        glob: Option<String>,
    },
    /// Show who somebody is, or who is in a room
    Who {
        /// A person or a room
        #[arg(value_parser = target)]
        target: Target,
    },
    /// Tell others that one is away
    ///
    /// Holds until `dsc back`, while the account has a session, such as that of `dsc tail`.
    Away {
        /// What they are told
        #[arg(value_parser = one_line)]
        text: Vec<String>,
    },
    /// Tell others that one is back
    Back,

    // ---- keys and trust ----------------------------------------------------------------------------
    /// Make the keys of this device, without talking to a server
    ///
    /// `dsc register` and `dsc login` do it by themselves. Afterwards `dsc keys publish` gives the public
    /// half to the server.
    Init(NewStore),
    /// Publish and count the keys with which others begin sessions
    #[command(subcommand)]
    Keys(Keys),
    /// Show the safety number with somebody
    ///
    /// It is the same on both sides unless somebody stands between. Compare it by voice or in person, then
    /// say so with `dsc verify`. Without USER: the 30 digits of one's own account.
    Number(Number),
    /// Compare the safety number with somebody, and remember that it was right
    Verify(Verify),
    /// Show what is known of somebody's identity, or accept a new one
    ///
    /// When an account shows another identity than before, nothing is sent to it. Ask the person whether
    /// they began anew; if so, accept with the first 10 digits of the number that they read out.
    #[command(after_help = "\
Examples:
  dsc trust bob
  dsc trust bob --accept '53038 54937'")]
    Trust(Trust),
    /// List the devices of an account; name one, or drop one of one's own
    Devices(Devices),
    /// Add a device to an account
    ///
    /// Run it on the new device: it shows a code and waits for 10 minutes. On the device that has the
    /// account's key, run `dsc link --approve CODE`.
    Link {
        /// The code that the new device shows
        #[arg(long, value_name = "CODE", value_parser = one_line)]
        approve: Option<String>,
    },
    /// Print the account's key as words to write down
    ///
    /// Who has these words is the account, on every device and for ever.
    Export {
        /// Write them to FILE (which must not exist) instead
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Read the words of `dsc export`, or lines that a server printed
    ///
    /// Tells them apart by their content: words restore the account's key in a home without one; rows of
    /// /keys get and /roster are checked and kept, as if dsc had asked for them.
    Import {
        /// What to read; standard input without it
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Change the passphrase of the key store
    ///
    /// Asks for the old and the new one, or reads them from the first and second line of
    /// --passphrase-file.
    Passphrase {
        /// Without a passphrase from now on: who can read the files has the keys
        #[arg(long)]
        remove: bool,
    },

    // ---- by hand and for programs ------------------------------------------------------------------
    /// Seal standard input into a line to type to a server
    ///
    /// For a session by hand, as with `openssl s_client`. In a room, the /signal lines that it prints must
    /// be sent before the /msg line.
    #[command(after_help = "\
Examples:
  echo hi | dsc seal --to bob
  echo hi | dsc seal --room '#ops'")]
    Seal(Seal),
    /// Open the envelopes in lines of a server
    ///
    /// Reads lines on standard input, replaces envelopes by their text, and passes every other line
    /// through. Exits with 1 if an envelope could not be opened.
    Open,
    /// Print the lines that send a file, for a session by hand
    ///
    /// First the /send-file line. The server's answer names the file: with --file F, the lines of its pieces
    /// follow, and at the end those of the message that tells the receivers. --offset N begins where the server
    /// has stopped.
    #[command(after_help = "\
Examples:
  dsc encode report.pdf bob
  dsc encode report.pdf bob --file 17")]
    Encode(Encode),
    /// Show the header of envelopes: what everybody on the way can read
    ///
    /// Reads server lines or bare envelopes on standard input. Needs no keys and prints none.
    Inspect,
    /// Speak the protocol on standard input and output, with encryption on the way
    ///
    /// Lines of the protocol in, lines of the server out; what goes to whom has keys is sealed, what comes
    /// sealed is opened. With --json, what comes out is one JSON object a line.
    Pipe,
    /// Print the JSON Schema of a line of --json
    Schema,

    // ---- about dsc ---------------------------------------------------------------------------------
    /// Print the completions of a shell
    #[command(after_help = "\
Examples:
  dsc completions bash > ~/.local/share/bash-completion/completions/dsc
  dsc completions fish > ~/.config/fish/completions/dsc.fish")]
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Print the manual page, of dsc or of one command
    #[command(after_help = "\
Examples:
  dsc man | man -l -
  dsc man send | man -l -")]
    Man {
        /// Of this command
        command: Option<String>,
    },
}

/// Options of whatever may make the key store of this home.
#[derive(Debug, Clone, Args)]
pub struct NewStore {
    /// Make a key store without a passphrase: who can read its files has the keys
    #[arg(long)]
    pub no_passphrase: bool,
}

/// `register`
#[derive(Debug, Args)]
pub struct Register {
    /// An invitation, where the server wants one
    #[arg(long, value_name = "CODE", value_parser = one_line)]
    pub invite: Option<String>,
    #[command(flatten)]
    pub store: NewStore,
}

/// `send`
#[derive(Debug, Args)]
pub struct Send {
    /// Rooms and people, with commas between them
    #[arg(value_name = "TARGET[,TARGET...]")]
    pub targets: Targets,
    /// The text; standard input without it
    pub text: Vec<String>,
    /// In clear text: the server can read and change it
    #[arg(long)]
    pub plain: bool,
}

/// `send-file`
#[derive(Debug, Args)]
pub struct SendFile {
    /// A room or a person
    #[arg(value_parser = target)]
    pub target: Target,
    /// What to send; - is standard input
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Another name for it
    #[arg(long, value_name = "NAME", value_parser = file_name)]
    pub name: Option<String>,
    /// Its media type [default: after its name]
    #[arg(long, value_name = "TYPE", value_parser = media_type)]
    pub mime: Option<String>,
    /// Send a directory, as one tar archive; links in it stay links
    #[arg(long)]
    pub tar: bool,
    /// In clear text: the server can read and change it
    #[arg(long)]
    pub plain: bool,
}

/// `resume`
#[derive(Debug, Args)]
pub struct Resume {
    /// List them instead
    #[arg(long)]
    pub list: bool,
    /// Give one up: the first digits of its id in the list
    #[arg(long, value_name = "ID", value_parser = one_line, conflicts_with = "list")]
    pub drop: Option<String>,
}

/// `encode`
#[derive(Debug, Args)]
pub struct Encode {
    /// The file
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// A room or a person
    #[arg(value_parser = target)]
    pub target: Target,
    /// The server's number of the file, from its answer to /send-file
    #[arg(long, value_name = "F", value_parser = file_number)]
    pub file: Option<String>,
    /// The first byte that the server does not have
    #[arg(long, value_name = "N", default_value_t = 0, requires = "file")]
    pub offset: u64,
    /// Another name for it
    #[arg(long, value_name = "NAME", value_parser = file_name)]
    pub name: Option<String>,
    /// Its media type [default: after its name]
    #[arg(long, value_name = "TYPE", value_parser = media_type)]
    pub mime: Option<String>,
    /// In clear text: the server can read and change it
    #[arg(long)]
    pub plain: bool,
}

/// `tail`
#[derive(Debug, Args)]
pub struct Tail {
    /// Only these rooms and people
    #[arg(value_name = "TARGET", value_parser = target)]
    pub targets: Vec<Target>,
    /// Save the files that come, into this folder
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// Save no file that is larger
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size, requires = "save")]
    pub save_max: u64,
}

/// `get-file`
#[derive(Debug, Args)]
pub struct GetFile {
    /// The message that speaks of it, as in bob/17 and '#ops/3', or the server's number of it
    #[arg(value_name = "FILE", required = true, value_parser = file)]
    pub files: Vec<FileRef>,
    /// Where to: a folder, the path of a new file, or - for standard output
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

/// `fetch`
#[derive(Debug, Args)]
pub struct Fetch {
    /// A room or a person
    #[arg(value_parser = target)]
    pub target: Option<Target>,
    /// At most so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), requires = "target")]
    pub limit: Option<u32>,
    /// Only messages before this number
    #[arg(long, value_name = "ID", requires = "target", conflicts_with = "after")]
    pub before: Option<u64>,
    /// Only messages after this number
    #[arg(long, value_name = "ID", requires = "target")]
    pub after: Option<u64>,
}

/// `search`
#[derive(Debug, Args)]
pub struct Search {
    /// What to search for
    #[arg(required = true)]
    pub words: Vec<String>,
    /// Only in this room or with this person
    #[arg(long = "in", value_name = "TARGET", value_parser = target)]
    pub target: Option<Target>,
    /// At most so many messages, the newest
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// A message in a conversation.
#[derive(Debug, Args)]
pub struct MessageArg {
    /// The room, or the other person
    #[arg(value_parser = target)]
    pub target: Target,
    /// The message: its number there, or its msg_id of --json
    #[arg(value_name = "MSG")]
    pub message: MessageRef,
}

/// A room.
#[derive(Debug, Args)]
pub struct RoomArg {
    /// The room, with or without its #
    #[arg(value_name = "ROOM")]
    pub room: Room,
}

/// A room and a person.
#[derive(Debug, Args)]
pub struct RoomUser {
    #[command(flatten)]
    pub room: RoomArg,
    /// The person
    #[arg(value_parser = user)]
    pub user: UserName,
}

/// `kick` and `ban`
#[derive(Debug, Args)]
pub struct Removal {
    #[command(flatten)]
    pub who: RoomUser,
    /// What the others are told
    #[arg(value_parser = one_line)]
    pub reason: Vec<String>,
}

/// `create`
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    pub room: RoomArg,
    /// Everybody on the server may join, the server's own accounts included
    #[arg(long, conflicts_with = "closed")]
    pub open: bool,
    /// Only who an admin of the room adds is a member (the default)
    #[arg(long)]
    pub closed: bool,
    /// In clear text: the server can read and change what is said
    #[arg(long)]
    pub plain: bool,
    /// What it is about; the server can read it
    #[arg(long, value_name = "TEXT", value_parser = one_line)]
    pub topic: Option<String>,
}

/// `keys`
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Give the public keys of this device to the server
    Publish {
        /// Print the lines to type to the server instead
        #[arg(long)]
        print: bool,
    },
    /// Show how many one-time keys the server has left
    Status,
    /// Make and publish one-time keys where they run low
    Refill,
}

/// `number`
#[derive(Debug, Args)]
pub struct Number {
    /// The other person
    #[arg(value_parser = user)]
    pub user: Option<UserName>,
    /// Also as a QR code
    #[arg(long)]
    pub qr: bool,
}

/// `verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The other person
    #[arg(value_parser = user)]
    pub user: UserName,
    /// Also as a QR code
    #[arg(long)]
    pub qr: bool,
}

/// `trust`
#[derive(Debug, Args)]
pub struct Trust {
    /// The other person
    #[arg(value_parser = user)]
    pub user: UserName,
    /// Accept the new identity, by the first 10 digits of its safety number
    #[arg(long, value_name = "DIGITS", value_parser = ten_digits)]
    pub accept: Option<String>,
    /// Also if the old identity was verified
    #[arg(long, requires = "accept")]
    pub was_verified: bool,
}

/// `devices`
#[derive(Debug, Args)]
pub struct Devices {
    /// Whose; one's own without it
    #[arg(value_parser = user)]
    pub user: Option<UserName>,
    /// Give a device a name on this machine
    #[arg(long, num_args = 2, value_names = ["DEVICE", "NAME"], value_parser = one_line, conflicts_with = "drop")]
    pub name: Option<Vec<String>>,
    /// Take a device off one's own account: the first digits of its id, or its name
    #[arg(long, value_name = "DEVICE", value_parser = one_line, conflicts_with = "user")]
    pub drop: Option<String>,
}

/// `seal`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("receiver").required(true).args(["to", "room"]))]
pub struct Seal {
    /// For a person
    #[arg(long, value_name = "USER", value_parser = user)]
    pub to: Option<UserName>,
    /// For a room
    #[arg(long, value_name = "ROOM")]
    pub room: Option<Room>,
    /// Print the base64 of the envelope alone
    #[arg(long)]
    pub raw: bool,
}
