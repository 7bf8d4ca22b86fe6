//! What each command does: one function each, one file a topic, and the one table from names to functions.

pub mod account;
mod download;
mod filter;
pub mod inspect;
pub mod local;
mod pipe;
mod rooms;
pub mod server;
mod talk;
mod transfer;
mod trust;
mod upload;

use downstream::e2e::inner::ChangeKind;

use crate::app::{self, Client, Member};
use crate::cli::Command;
use crate::context::Context;
use crate::error::Failure;
use crate::event::Event;
use crate::server::{Answer, Lost, Server};
use crate::store::Store;

/// Entries of the history erased at once: the store is locked meanwhile, and the next command goes on.
const SWEEP_AT_ONCE: usize = 10_000;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Does a command.
///
/// # Errors
/// Why it was not done, with the exit code.
pub fn run(ctx: &mut Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Inspect => inspect::inspect(ctx),
        Command::Schema => local::schema(ctx),
        Command::Completions { shell } => local::completions(ctx, shell),
        Command::Man { command } => local::man(ctx, command.as_deref()),
        Command::Send(send) => talk::send(ctx, &send),
        Command::Fetch(fetch) => talk::fetch(ctx, &fetch),
        Command::Tail(tail) => talk::tail(ctx, &tail),
        Command::Search(search) => talk::search(ctx, &search),
        Command::React { message, text } => talk::change(ctx, ChangeKind::React, &message, &text),
        Command::Edit { message, text } => talk::change(ctx, ChangeKind::Edit, &message, &text),
        Command::Delete { message } => talk::change(ctx, ChangeKind::Delete, &message, &[]),
        Command::SendFile(file) => upload::send_file(ctx, &file),
        Command::Files { target } => download::files(ctx, target.as_ref()),
        Command::GetFile(file) => download::get_file(ctx, &file),
        Command::Resume(resume) => transfer::resume(ctx, &resume),
        Command::Encode(file) => upload::encode(ctx, &file),
        Command::Resend => talk::resend(ctx),
        Command::Rooms { glob } => rooms::rooms(ctx, glob.as_deref()),
        Command::Create(create) => rooms::create(ctx, &create),
        Command::Join { room } => rooms::join(ctx, &room.room.0),
        Command::Leave { room, reason } => rooms::leave(ctx, &room.room.0, &reason),
        Command::Members { room } => rooms::members(ctx, &room.room.0),
        Command::Invite(who) => rooms::change_member(ctx, &who.room.room.0, &who.user, Member::Invite, &[]),
        Command::Op(who) => rooms::change_member(ctx, &who.room.room.0, &who.user, Member::Op, &[]),
        Command::Deop(who) => rooms::change_member(ctx, &who.room.room.0, &who.user, Member::Deop, &[]),
        Command::Kick(gone) => {
            rooms::change_member(ctx, &gone.who.room.room.0, &gone.who.user, Member::Kick, &gone.reason)
        }
        Command::Ban(gone) => {
            rooms::change_member(ctx, &gone.who.room.room.0, &gone.who.user, Member::Ban, &gone.reason)
        }
        Command::Keys(keys) => trust::keys(ctx, &keys),
        Command::Number(number) => trust::number(ctx, number.user.as_ref(), number.qr),
        Command::Verify(verify) => trust::verify(ctx, &verify.user, verify.qr),
        Command::Trust(trust) => trust::trust(ctx, &trust),
        Command::Devices(devices) => trust::devices(ctx, &devices),
        Command::Link { approve: Some(code) } => trust::approve(ctx, &code),
        Command::Link { approve: None } => trust::link(ctx),
        Command::Export { file } => trust::export(ctx, file.as_deref()),
        Command::Import { file } => trust::import(ctx, file.as_deref()),
        Command::Seal(seal) => filter::seal(ctx, &seal),
        Command::Open => filter::open(ctx),
        Command::Pipe => pipe::pipe(ctx),
        Command::Register(register) => account::register(ctx, &register),
        Command::Login(new) => account::login(ctx, &new),
        Command::Logout => account::logout(ctx),
        Command::Passwd => account::passwd(ctx),
        Command::Whoami => account::whoami(ctx),
        Command::Passphrase { remove } => account::passphrase(ctx, remove),
        Command::Users { glob } => server::users(ctx, glob.as_deref()),
        Command::Who { target } => server::who(ctx, &target),
        Command::Away { text } => server::away(ctx, &text),
        Command::Back => server::back(ctx),
        Command::Topic { room, text } => server::topic(ctx, &room.room.0, &text),
        Command::Unban(who) => server::unban(ctx, &who.room.room.0, &who.user),
        Command::Unread { all } => server::unread(ctx, all),
        Command::Init(new) => trust::init(ctx, &new),
    }
}

/// Works with a connection, logged in, after the usual upkeep of keys.
///
/// # Errors
/// [`Failure`] of the connection or of the work.
pub(crate) fn online<T>(
    ctx: &mut Context,
    work: impl FnOnce(&mut Client<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let out = ctx.out;
    online_with(ctx, &mut |event| out.show(event), |client, _| work(client))
}

/// The same where events are shown in another way. `work` is told, too, how large a file the server takes.
///
/// # Errors
/// [`Failure`] of the connection or of the work.
fn online_with<T>(
    ctx: &mut Context,
    show: &mut dyn FnMut(&Event) -> Result<(), Failure>,
    work: impl FnOnce(&mut Client<'_>, Option<u64>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut connection = ctx.connect()?;
    // One command's worth of news is read from the logs; what comes by itself meanwhile is not kept.
    connection.ignore_events();
    let (days, max_file) = (ctx.settings.history_days, connection.hello().max_file);
    let store = ctx.store()?;
    let mut client = Client { store, server: &mut connection, show };
    let done = client.upkeep().and_then(|()| work(&mut client, max_file));
    connection.quit();
    sweep(store, days)?;
    done
}

/// Erases what the history has kept for longer than the settings say.
///
/// # Errors
/// [`Failure`] of the store.
pub(crate) fn sweep(store: &mut Store, days: u32) -> Result<(), Failure> {
    let before = app::now().ms().saturating_sub(u64::from(days).saturating_mul(DAY_MS));
    store.transact(|tx| -> Result<(), Failure> {
        tx.sweep(before, SWEEP_AT_ONCE)?;
        Ok(())
    })
}

/// Works without a connection: whatever would have to be asked becomes a command for the person to type.
///
/// # Errors
/// [`Failure`].
pub(crate) fn offline<T>(
    ctx: &mut Context,
    work: impl FnOnce(&mut Client<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let out = ctx.out;
    let store = ctx.store()?;
    let mut show = |event: &Event| out.show(event);
    work(&mut Client { store, server: &mut Nobody, show: &mut show })
}

/// No server.
struct Nobody;

impl Server for Nobody {
    fn is_offline(&self) -> bool {
        true
    }

    fn ask_all(&mut self, commands: &[&str]) -> Result<Vec<Answer>, Lost> {
        Err(Lost::Offline(commands.iter().map(|command| (*command).to_owned()).collect()))
    }
}
