//! `docs/dsc.md` against the code: its tables are made from the definitions.
//! `UPDATE_GOLDEN=1 cargo test --bin dsc manual` writes them anew.

use std::path::Path;

use clap::{Arg, CommandFactory as _};

use crate::cli::{Cli, GROUPS};
use crate::error::Exit;
use crate::settings::KEYS;
use crate::show;
use crate::testing::golden;

const MANUAL: &str = "docs/dsc.md";

fn manual() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(MANUAL)).unwrap()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn table(head: [&str; 2], rows: impl IntoIterator<Item = (String, String)>) -> String {
    let rows = rows.into_iter().map(|(left, right)| format!("| {} | {} |\n", cell(&left), cell(&right)));
    format!("| {} | {} |\n|---|---|\n{}", head[0], head[1], rows.collect::<String>())
}

/// An argument as a person would note it.
fn noted(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let values: Vec<String> = match names {
        [] => vec![arg.get_id().as_str().to_uppercase()],
        names => names.iter().map(ToString::to_string).collect(),
    };
    let many = if arg.get_num_args().is_some_and(|range| range.max_values() > 2) { "..." } else { "" };
    let takes = arg.get_num_args().is_some_and(|range| range.takes_values());
    let values = if takes { values.join(" ") } else { String::new() };
    let text = match (arg.get_long(), values.as_str()) {
        (None, values) => format!("{values}{many}"),
        (Some(long), "") => format!("--{long}"),
        (Some(long), values) => format!("--{long} {values}"),
    };
    if arg.is_required_set() { text } else { format!("[{text}]") }
}

fn own_arguments(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_global_set() && !["help", "version"].contains(&arg.get_id().as_str()))
}

fn usage(path: &str, command: &clap::Command) -> String {
    let (positional, options): (Vec<&Arg>, Vec<&Arg>) =
        own_arguments(command).partition(|arg| arg.get_long().is_none());
    let arguments: Vec<String> = positional.into_iter().chain(options).map(noted).collect();
    format!("`{}`", format!("{path} {}", arguments.join(" ")).trim_end())
}

/// The definitions with all that follows from them, such as how many values an argument takes.
fn definitions() -> clap::Command {
    let mut definitions = Cli::command();
    definitions.build();
    definitions
}

fn about(command: &clap::Command) -> String {
    command.get_about().unwrap().to_string()
}

fn commands() -> String {
    let definitions = definitions();
    let mut out = String::new();
    for (heading, names) in GROUPS {
        let mut rows = Vec::new();
        for command in names.iter().filter_map(|name| definitions.find_subcommand(name)) {
            let name = command.get_name();
            if name == "help" {
                rows.push(("`help [COMMAND]`".to_owned(), about(command)));
            } else if command.has_subcommands() {
                let subs = command.get_subcommands().filter(|sub| sub.get_name() != "help");
                rows.extend(subs.map(|sub| (usage(&format!("{name} {}", sub.get_name()), sub), about(sub))));
            } else {
                rows.push((usage(name, command), about(command)));
            }
        }
        out.push_str(&format!("\n**{heading}**\n\n{}", table(["command", "what it does"], rows)));
    }
    out
}

fn options() -> String {
    let definitions = definitions();
    let global = definitions.get_arguments().filter(|arg| arg.is_global_set());
    let rows = global.map(|arg| {
        let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
        let noted = noted(arg);
        let noted = noted.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&noted);
        (format!("`{short}{noted}`"), arg.get_help().unwrap().to_string())
    });
    table(["option", "what it does"], rows)
}

fn settings() -> String {
    let row = |key: &crate::settings::Key| {
        let text = format!("{}. It takes {}. Default: {}.", key.about, key.allowed, key.default);
        (format!("`{}`", key.name), text)
    };
    table(["key", "what it is"], KEYS.iter().map(row))
}

fn exits() -> String {
    table(["code", "meaning"], Exit::ALL.map(|(exit, text)| ((exit as u8).to_string(), text.to_owned())))
}

/// The constants of a field in the schema, each with its description.
fn described(alternatives: &serde_json::Value, constant: impl Fn(&serde_json::Value) -> &serde_json::Value) -> String {
    let rows = alternatives.as_array().unwrap().iter().map(|one| {
        let text = one["description"].as_str().unwrap().to_owned();
        (format!("`{}`", constant(one).as_str().unwrap()), text)
    });
    table(["word", "meaning"], rows)
}

fn schema() -> serde_json::Value {
    serde_json::from_str(&show::schema().unwrap()).unwrap()
}

fn sections() -> Vec<(&'static str, String)> {
    let schema = schema();
    vec![
        ("commands", commands()),
        ("options", options()),
        ("settings", settings()),
        ("exit codes", exits()),
        ("marks", described(&schema["$defs"]["Mark"]["oneOf"], |one| &one["const"])),
        ("events", described(&schema["oneOf"], |one| &one["properties"]["event"]["const"])),
        ("lists", described(&schema["$defs"]["Row"]["oneOf"], |one| &one["properties"]["list"]["const"])),
        ("contents", described(&schema["$defs"]["Content"]["oneOf"], |one| &one["properties"]["kind"]["const"])),
    ]
}

#[test]
fn the_tables_are_those_of_the_code() {
    let mut text = manual();
    for (name, table) in sections() {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{MANUAL} has no {begin}"));
        let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{MANUAL} has no {end}"));
        text = format!("{before}{begin}{table}{end}{after}");
    }
    golden(Path::new(MANUAL), &text);
}

#[test]
fn every_command_and_option_is_explained_beyond_the_tables() {
    let text = manual();
    let prose: String = text.lines().filter(|line| !line.starts_with('|')).map(|line| format!("{line}\n")).collect();
    let definitions = definitions();
    for command in definitions.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("dsc {}", command.get_name());
        assert!(prose.contains(&name), "{MANUAL} does not explain `{name}`");
    }
    for command in std::iter::once(&definitions).chain(definitions.get_subcommands()) {
        for long in command.get_arguments().filter_map(Arg::get_long).filter(|long| *long != "version") {
            assert!(prose.contains(&format!("--{long}")) || long == "help", "{MANUAL} does not explain --{long}");
        }
    }
}

#[test]
fn the_files_in_the_home_are_named() {
    let text = manual();
    for file in ["dsc.toml", "known_servers", "store.db", "passphrase.slot", "machine.slot", "lock"] {
        assert!(text.contains(&format!("| `{file}` |")), "{file}");
    }
}
