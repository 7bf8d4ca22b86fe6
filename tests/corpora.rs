//! Every input that the fuzzers once found worth keeping, through the bodies of the fuzz targets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

#[path = "fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

fn replay(target: &str, body: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files = 0;
    for file in std::fs::read_dir(&directory).unwrap() {
        let path = file.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        if let Err(panic) = std::panic::catch_unwind(|| body(&data)) {
            panic!("{}: {panic:?}", path.display());
        }
        // Beginnings of an input are inputs that the fuzzer would try next.
        (0..data.len().min(300)).for_each(|end| body(&data[..end]));
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
fn key_record() {
    replay("key_record", bodies::key_record);
}

#[test]
fn every_target_has_its_corpus_and_its_place_in_the_package() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let names = |inside: &str| {
        let mut names: Vec<String> = std::fs::read_dir(fuzz.join(inside))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap().trim_end_matches(".rs").to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("fuzz_targets"), names("corpus"));
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for name in names("corpus") {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in tests/fuzz/Cargo.toml");
    }
}
