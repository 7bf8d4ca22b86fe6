//! Who may name whom (ARCHITECTURE.md): a module may name what stands to its left. The core knows no
//! engine, no socket and no clock; the daemon never names the end-to-end code, and that names nothing of
//! ours.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From left to right. Modules on one level do not name each other.
const LEVELS: [&[&str]; 11] = [
    &["protocol"],
    &["ops"],
    &["session"],
    &["hub"],
    &["commands"],
    // How text is made harmless for a terminal or a log, and the sink itself.
    &["logging"],
    &["store", "hasher", "tls", "config"],
    // What the machine gives and what the operator types: systemd, sockets, arguments.
    &["service", "cli"],
    &["reactor"],
    // The operator's commands, and what is put together before the loop turns.
    &["operator"],
    &["startup"],
];

/// The top modules that `module` may name.
fn may_name(module: &str) -> BTreeSet<&'static str> {
    if module == "e2e" {
        return BTreeSet::new();
    }
    let level = LEVELS.iter().position(|level| level.contains(&module));
    let level = level.unwrap_or_else(|| panic!("src/{module}.rs has no place in LEVELS; give it one"));
    LEVELS[..level].iter().flat_map(|level| level.iter().copied()).collect()
}

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// The code of a file as it ships: no comments, no text literals, no test module.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|&c| c != '\n').is_some() {},
            '/' if chars.peek() == Some(&'*') => {
                let mut last = ' ';
                for c in chars.by_ref() {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            'r' if !out.ends_with(|c: char| c.is_alphanumeric() && c != 'b') => {
                // A raw text ends at its quote and as many hashes as it began with.
                let hashes = chars.clone().take_while(|&c| c == '#').count();
                if chars.clone().nth(hashes) != Some('"') {
                    out.push('r');
                    continue;
                }
                let end = format!("\"{}", "#".repeat(hashes));
                let rest: String = chars.clone().skip(hashes + 1).collect();
                let length = rest.find(&end).map_or(0, |at| rest[..at].chars().count());
                chars.by_ref().nth(hashes + length + end.len());
                out.push_str("\"\"");
            }
            '"' => {
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                out.push_str("\"\"");
            }
            '\'' => {
                // A character literal, or a lifetime, which has no closing quote behind one character.
                let rest: Vec<char> = chars.clone().take(3).collect();
                match rest.as_slice() {
                    ['\\', ..] => {
                        chars.next();
                        chars.next();
                        while chars.next_if(|&c| c != '\'').is_some() {}
                        chars.next();
                    }
                    [_, '\'', ..] => {
                        chars.next();
                        chars.next();
                    }
                    _ => {}
                }
                out.push('\'');
            }
            c => out.push(c),
        }
    }
    out
}

/// The first segments of every path that begins with `root` (`crate::` or `downstream::`).
fn named(code: &str, root: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = code;
    while let Some(at) = rest.find(root) {
        let before = rest[..at].chars().next_back();
        rest = &rest[at + root.len()..];
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_heads(group)),
            None => names.extend(head(rest)),
        }
    }
    names
}

fn head(text: &str) -> Option<String> {
    let name: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first segments in `a::x, b::{c, d}, e}`.
fn group_heads(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut heads = Vec::new();
    let mut fresh = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                heads.extend(head(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    heads
}

/// What a chain of `super::` that leaves all modules of this file arrives at.
fn named_by_super(code: &str, depth: usize) -> BTreeSet<String> {
    named(code, &"super::".repeat(depth))
}

#[test]
fn modules_name_only_what_stands_to_their_left() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 5);
    let tops: BTreeSet<String> = files
        .iter()
        .filter_map(|file| file.strip_prefix(&src).unwrap().iter().next()?.to_str())
        .map(|top| top.trim_end_matches(".rs").to_owned())
        .filter(|top| !matches!(top.as_str(), "lib" | "main" | "bin"))
        .collect();
    let mut wrong = Vec::new();
    for file in &files {
        let inside = file.strip_prefix(&src).unwrap();
        let parts: Vec<&str> = inside.iter().map(|part| part.to_str().unwrap()).collect();
        if parts.last().is_some_and(|name| *name == "tests.rs") {
            continue;
        }
        let text = code(&std::fs::read_to_string(file).unwrap());
        let top = parts[0].trim_end_matches(".rs");
        let (allowed, used): (BTreeSet<&str>, BTreeSet<String>) = match top {
            "lib" => continue,
            "main" => (tops.iter().map(String::as_str).filter(|t| *t != "e2e").collect(), named(&text, "downstream::")),
            "bin" => (["protocol", "e2e"].into(), named(&text, "downstream::")),
            top => {
                let mut used = named(&text, "crate::");
                used.extend(named_by_super(&text, parts.len()));
                (may_name(top), used)
            }
        };
        for name in used.iter().filter(|name| tops.contains(*name) && name.as_str() != top) {
            if !allowed.contains(name.as_str()) {
                wrong.push(format!("src/{} names {name}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_scanner_sees_what_it_should() {
    let text = "//! crate::comment\nuse crate::hub::{self, crate_x};\nuse crate::{ops, protocol::{Target, line}, store::sqlite};\n\
                let s = \"crate::text\"; let c = '\"'; let l: &'a str = crate::tls::x();\n\
                let r = (r\"crate::raw\", r#\"crate::raw \" crate::raw\"#, br\"crate::raw\"); for x in r {}\nmy_crate::nothing();\n\
                use super::super::reactor::conn;\n#[cfg(test)]\nmod tests { use crate::only_in_tests; }\n";
    let text = code(text);
    let names: Vec<String> = named(&text, "crate::").into_iter().collect();
    assert_eq!(names, ["hub", "ops", "protocol", "store", "tls"]);
    assert_eq!(named_by_super(&text, 2).into_iter().collect::<Vec<_>>(), ["reactor"]);
}

/// The core reads no clock, opens no file or socket and starts no thread, and the end-to-end code neither:
/// clippy denies it (clippy.toml) in each of these modules.
#[test]
fn the_core_denies_itself_clocks_files_and_threads() {
    for module in ["protocol", "ops", "session", "hub", "commands", "e2e"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{module}.rs"));
        let denies = "#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]";
        assert!(std::fs::read_to_string(&path).unwrap().contains(denies), "{} lacks {denies}", path.display());
    }
}

fn manifest() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap()
}

/// What stands behind `name = ` in `[features]`.
fn feature(manifest: &str, name: &str) -> BTreeSet<String> {
    let (_, rest) = manifest.split_once(&format!("\n{name} = [")).unwrap_or_else(|| panic!("no feature {name}"));
    rest.split(']').next().unwrap().split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// "The server cannot read it" is a fact of the build: with `daemon` alone the end-to-end code is not there,
/// and neither is the cryptography that only it needs.
#[test]
fn a_daemon_alone_has_no_end_to_end_code() {
    let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    assert!(lib.contains("#[cfg(feature = \"client\")]\npub mod e2e;\n"), "e2e stands behind `client`");
    let daemon = feature(&manifest(), "daemon");
    for name in ["client", "dep:ed25519-dalek", "dep:hmac", "dep:ml-kem", "dep:x25519-dalek"] {
        assert!(!daemon.contains(name), "daemon turns {name} on");
        assert!(name == "client" || feature(&manifest(), "client").contains(name), "client lacks {name}");
    }
}

/// A canary is refused by a release build, turns something off, and is run.
#[test]
fn every_canary_is_refused_used_and_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let module = std::fs::read_to_string(root.join("src/e2e.rs")).unwrap();
    assert!(module.contains("#[cfg(all(feature = \"canary\", not(debug_assertions)))]\ncompile_error!("));
    let mut files = Vec::new();
    sources(&root.join("src/e2e"), &mut files);
    let texts: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let script = std::fs::read_to_string(root.join("scripts/canaries.sh")).unwrap();
    let manifest = manifest();
    let canaries: Vec<&str> =
        manifest.lines().filter(|line| line.starts_with("break-")).filter_map(|line| line.split(' ').next()).collect();
    assert!(canaries.len() >= 20, "{canaries:?}");
    for name in canaries {
        assert_eq!(feature(&manifest, name).into_iter().collect::<Vec<_>>(), ["canary"], "{name}");
        assert!(texts.contains(&format!("feature = \"{name}\"")), "{name} turns nothing off");
        assert!(script.contains(&format!("\ncanary {name} ")), "scripts/canaries.sh does not run {name}");
    }
}
