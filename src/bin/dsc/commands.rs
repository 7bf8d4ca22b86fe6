//! What each command does: one function each, one file a topic, and the one table from names to functions.

pub mod account;
pub mod inspect;
pub mod local;
pub mod server;

use crate::cli::Command;
use crate::context::Context;
use crate::error::Failure;

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
        _ => Err(Failure::failed("this command is not built yet")),
    }
}
