//! Every input that the fuzzers once found worth keeping, through the bodies of the fuzz targets.
//!
//! The files `seed-*` of `tests/fuzz/corpus/e2e_*` are made by the code: `UPDATE_GOLDEN=1 cargo test --test corpora`
//! writes them anew after a change of a format. What a fuzzer found is kept beside them under any other name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

#[path = "fuzz/bodies.rs"]
mod bodies;
#[cfg(feature = "client")]
#[path = "fuzz/e2e/mod.rs"]
mod e2e;
#[cfg(feature = "daemon")]
#[path = "simulation/mod.rs"]
mod sim;

use std::path::{Path, PathBuf};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// Each file of a target, and its beginnings, which are inputs that the fuzzer would try next.
fn replay(target: &str, body: fn(&[u8])) {
    replay_whole(target, |data| {
        body(data);
        (0..data.len().min(300)).for_each(|end| body(&data[..end]));
    });
}

/// Each file of a target, for those that take longer.
fn replay_whole(target: &str, body: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let directory = fuzz().join("corpus").join(target);
    let mut files = 0;
    for file in std::fs::read_dir(&directory).unwrap() {
        let path = file.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        if let Err(panic) = std::panic::catch_unwind(|| body(&data)) {
            panic!("{}: {panic:?}", path.display());
        }
        files += 1;
    }
    assert!(files >= 10, "{} holds {files} files", directory.display());
}

#[test]
fn line_splitter() {
    replay("line_splitter", bodies::line_splitter);
}

#[test]
fn request() {
    replay("request", bodies::request);
}

#[test]
fn answer() {
    replay("answer", bodies::answer);
}

#[test]
fn key_record() {
    replay("key_record", bodies::key_record);
}

#[cfg(feature = "daemon")]
#[test]
fn core() {
    replay_whole("core", |data| {
        sim::play(data, true);
    });
}

#[cfg(feature = "client")]
mod encryption {
    use std::collections::BTreeSet;

    use super::e2e::seeds::seeds;
    use super::e2e::{forms, states};
    use super::{fuzz, replay};

    #[test]
    fn text() {
        replay("e2e_text", forms::text);
    }

    #[test]
    fn envelope() {
        replay("e2e_envelope", forms::envelope);
    }

    #[test]
    fn inner() {
        replay("e2e_inner", forms::inner);
    }

    #[test]
    fn certificate() {
        replay("e2e_certificate", forms::certificate);
    }

    #[test]
    fn bundle() {
        replay("e2e_bundle", forms::bundle);
    }

    #[test]
    fn keyslot() {
        replay("e2e_keyslot", forms::keyslot);
    }

    #[test]
    fn link() {
        replay("e2e_link", forms::link);
    }

    #[test]
    fn file() {
        replay("e2e_file", forms::file);
    }

    #[test]
    fn learn() {
        replay("e2e_learn", states::learn);
    }

    #[test]
    fn roster_entry() {
        replay("e2e_roster_entry", states::entry);
    }

    #[test]
    fn roster() {
        replay("e2e_roster", states::roster);
    }

    #[test]
    fn row() {
        replay("e2e_row", states::row);
    }

    #[test]
    fn open() {
        replay("e2e_open", states::open);
    }

    #[test]
    fn peer() {
        replay("e2e_peer", states::peer);
    }

    #[test]
    fn the_seeds_are_those_of_the_code() {
        let mut made = BTreeSet::new();
        let update = std::env::var_os("UPDATE_GOLDEN").is_some();
        for seed in seeds() {
            let path = fuzz().join("corpus").join(seed.target).join(&seed.name);
            if update {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &seed.bytes).unwrap();
            }
            let same = std::fs::read(&path).is_ok_and(|bytes| bytes == seed.bytes);
            assert!(same, "{}: UPDATE_GOLDEN=1 cargo test --test corpora writes it anew", path.display());
            assert!(made.insert(path), "two seeds of one name: {} {}", seed.target, seed.name);
        }
        for target in std::fs::read_dir(fuzz().join("corpus")).unwrap() {
            for file in std::fs::read_dir(target.unwrap().path()).unwrap() {
                let file = file.unwrap();
                let is_seed = file.file_name().to_string_lossy().starts_with("seed-");
                if is_seed && !made.contains(&file.path()) {
                    assert!(update, "{} is no seed of the code any more", file.path().display());
                    std::fs::remove_file(file.path()).unwrap();
                }
            }
        }
    }
}

#[test]
fn every_target_has_its_corpus_and_its_place_in_the_package() {
    let names = |inside: &str| {
        let mut names: Vec<String> = std::fs::read_dir(fuzz().join(inside))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap().trim_end_matches(".rs").to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("fuzz_targets"), names("corpus"));
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let replayed = include_str!("corpora.rs");
    for name in names("corpus") {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in tests/fuzz/Cargo.toml");
        assert!(replayed.contains(&format!("(\"{name}\", ")), "nothing replays {name}");
    }
}
