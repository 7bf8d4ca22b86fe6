//! `completions`, `man`, `schema`: what follows from the definitions.

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::{self, Cli};
use crate::context::Context;
use crate::error::Failure;
use crate::settings::{FILE, KEYS, Key};
use crate::show;

/// Prints the completions of a shell.
///
/// # Errors
/// They cannot be printed.
pub fn completions(ctx: &Context, shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "dsc", &mut text);
    ctx.out.print(&String::from_utf8_lossy(&text))
}

/// Prints the manual page of `dsc`, or of one of its commands.
///
/// # Errors
/// There is no such command; it cannot be printed.
pub fn man(ctx: &Context, command: Option<&str>) -> Result<(), Failure> {
    // Not as help shows it: a page has room for the whole description.
    let mut definitions = Cli::command();
    definitions.build();
    let definitions = match command {
        None => definitions,
        Some(name) => definitions.find_subcommand(name).cloned().ok_or_else(|| {
            Failure::usage(format!("there is no command {name}")).hint("`dsc help` lists the commands")
        })?,
    };
    let mut text = Vec::new();
    let written =
        clap_mangen::Man::new(definitions).source(concat!("dsc ", env!("CARGO_PKG_VERSION"))).render(&mut text);
    written
        .and_then(|()| if command.is_none() { settings_page().to_writer(&mut text) } else { Ok(()) })
        .map_err(|error| Failure::failed(format!("cannot make the manual page: {error}")))?;
    ctx.out.print(&String::from_utf8_lossy(&text))
}

/// Prints the JSON Schema of a line of `--json`.
///
/// # Errors
/// It cannot be printed.
pub fn schema(ctx: &Context) -> Result<(), Failure> {
    ctx.out.print(&show::schema()?)
}

/// The keys of `dsc.toml`, as a section of the manual page.
fn settings_page() -> Roff {
    let mut page = Roff::new();
    page.control("SH", ["SETTINGS"]);
    page.text([roman("Keys of "), bold(FILE), roman(" in the home. What the command line says comes before them.")]);
    for Key { name, allowed, default, about } in KEYS {
        page.control("TP", []);
        page.text([bold(name)]);
        page.text([roman(format!("{about} ({allowed}; default: {default})"))]);
    }
    page
}
