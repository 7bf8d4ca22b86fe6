use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn folder() -> (tempfile::TempDir, Folder) {
    let home = tempfile::tempdir().unwrap();
    let folder = Folder::open(home.path(), false).unwrap();
    (home, folder)
}

fn part(folder: &Folder, name: &str, bytes: &[u8]) -> Part {
    let mut part = folder.begin(name).unwrap();
    part.write_all(bytes).unwrap();
    part
}

fn names(home: &tempfile::TempDir) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_part_is_its_owners_alone_and_a_file_like_others() {
    let (home, folder) = folder();
    let part = part(&folder, "a.txt", b"hello");
    let mode = |name: &str| fs::metadata(home.path().join(name)).unwrap().mode() & 0o777;
    fs::write(home.path().join("other"), "").unwrap();
    assert_eq!((names(&home), mode("a.txt.part")), (vec!["a.txt.part".to_owned(), "other".to_owned()], 0o600));
    let path = folder.finish(&part, "a.txt").unwrap();
    assert_eq!((fs::read(&path).unwrap(), mode("a.txt")), (b"hello".to_vec(), mode("other")));
    assert_eq!(path, home.path().join("a.txt"));
}

#[test]
fn nothing_is_overwritten() {
    let (home, folder) = folder();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target");
    fs::write(home.path().join("a.txt"), "mine").unwrap();
    // Links, also those that lead nowhere, are names like others.
    symlink(&target, home.path().join("a (1).txt")).unwrap();
    symlink(&target, home.path().join("a.txt.part")).unwrap();
    fs::create_dir(home.path().join("a (2).txt")).unwrap();
    let part = part(&folder, "a.txt", b"theirs");
    assert_eq!(part.id().name, "a (1).txt.part");
    assert_eq!(folder.finish(&part, "a.txt").unwrap(), home.path().join("a (3).txt"));
    assert_eq!(fs::read(home.path().join("a.txt")).unwrap(), b"mine");
    assert!(!target.exists());
    assert!(folder.has("a (1).txt") && !folder.has("a (4).txt"));
}

#[test]
fn tries_are_bounded() {
    let (home, folder) = folder();
    for n in 0..TRIES {
        fs::write(home.path().join(named("a", n, NAME_MAX)), "").unwrap();
    }
    let part = part(&folder, "a", b"");
    assert!(folder.finish(&part, "a").unwrap_err().message.contains("1000 files"));
    assert!(folder.has("a.part"));
}

#[test]
fn long_names_fit_with_what_stands_behind_them() {
    let (home, folder) = folder();
    let name = format!("{}.jpeg", "☃".repeat(83));
    assert_eq!(name.len(), 254);
    let part = part(&folder, &name, b"x");
    assert!(part.id().name.ends_with(".jpeg.part") && part.id().name.len() <= 255);
    folder.finish(&part, &name).unwrap();
    assert_eq!(names(&home), [name]);
}

#[test]
fn a_part_is_found_again() {
    let (_home, folder) = folder();
    let begun = part(&folder, "a.txt", b"hello");
    let id = begun.id().clone();
    assert!(matches!(folder.again(&id, "a.txt", 9).unwrap(), Before::Busy), "one process is at it");
    drop(begun);
    let Before::Part(mut part) = folder.again(&id, "a.txt", 9).unwrap() else { panic!("it is there") };
    assert_eq!(part.len().unwrap(), 5);
    part.cut(3).unwrap();
    let mut text = String::new();
    part.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hel");
    part.write_all(b"p").unwrap();
    let path = folder.finish(&part, "a.txt").unwrap();
    drop(part);
    assert_eq!(fs::read(&path).unwrap(), b"help");
    // As after a crash behind the renaming.
    assert!(matches!(folder.again(&id, "a.txt", 4).unwrap(), Before::Named(named) if named == path));
    assert!(matches!(folder.again(&id, "a.txt", 5).unwrap(), Before::Gone));
}

#[test]
fn what_took_the_place_of_a_part_is_left_alone() {
    let (home, folder) = folder();
    let id = part(&folder, "a.txt", b"hello").id().clone();
    let path = home.path().join("a.txt.part");
    let mine = home.path().join("mine");
    fs::write(&mine, "precious").unwrap();
    let gone = || matches!(folder.again(&id, "a.txt", 5).unwrap(), Before::Gone);

    // A second name of the part itself, and of another file.
    fs::hard_link(&path, home.path().join("second")).unwrap();
    assert!(gone());
    fs::rename(&path, home.path().join("first")).unwrap();
    assert!(gone());
    fs::hard_link(&mine, &path).unwrap();
    assert!(gone());
    fs::remove_file(&path).unwrap();
    symlink(&mine, &path).unwrap();
    assert!(gone());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(gone());
    assert_eq!(fs::read(&mine).unwrap(), b"precious");
}

#[test]
fn a_part_that_was_moved_away_gets_no_name() {
    let (home, folder) = folder();
    let part = part(&folder, "a.txt", b"hello");
    fs::rename(home.path().join("a.txt.part"), home.path().join("elsewhere")).unwrap();
    fs::write(home.path().join("a.txt.part"), "not ours").unwrap();
    assert!(folder.finish(&part, "a.txt").unwrap_err().message.contains("somebody else"));
    folder.discard(part).unwrap();
    assert_eq!(names(&home), ["a.txt.part", "elsewhere"]);
}

#[test]
fn a_claim_is_compared_with_the_disk_and_takes_nothing() {
    let (_home, folder) = folder();
    assert!(folder.has_room(1).is_ok());
    for claim in [1 << 52, u64::MAX] {
        assert!(folder.has_room(claim).unwrap_err().message.contains("do not fit"));
    }
}
