//! What each command does: one function each, one file a topic, and the one table from names to functions.

pub mod inspect;
pub mod local;

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
        _ => Err(Failure::failed("this command is not built yet")),
    }
}
