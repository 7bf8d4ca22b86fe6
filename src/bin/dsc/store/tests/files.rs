//! The home: creation, passphrases, permissions, interruptions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::store::home::Lock;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mark_with(store: &mut Store, cursor: u64) {
    with(store, |tx| tx.set_cursor(&target("bob"), cursor));
}

fn cursor(store: &mut Store) -> Option<u64> {
    with(store, |tx| tx.cursor(&target("bob")))
}

#[test]
fn a_home_is_made_for_its_owner_alone() {
    let parent = temporary();
    let home = parent.path().join("share/dsc");
    assert_eq!(Store::status(&home).unwrap(), Status::Missing);
    assert!(matches!(Store::open(&home, None), Err(StoreError::NotThere(_))));
    let mut store = Store::create(&home, Some(&passphrase("correct horse")), Cost::FLOOR).unwrap();
    mark_with(&mut store, 1);
    assert_eq!(mode(&home), 0o700);
    let mut names = Vec::new();
    for file in fs::read_dir(&home).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["lock", "passphrase.slot", "store.db"]);
    assert_eq!(Store::status(&home).unwrap(), Status::NeedsPassphrase);
    assert!(matches!(Store::create(&home, None, Cost::FLOOR), Err(StoreError::Exists(_))));
}

#[test]
fn a_passphrase_opens_and_no_other() {
    let home = temporary();
    let right = passphrase("correct horse");
    mark_with(&mut Store::create(home.path(), Some(&right), Cost::FLOOR).unwrap(), 3);
    let open = |given: Option<&Passphrase>| Store::open(home.path(), given).map(|mut store| cursor(&mut store));
    assert_eq!(open(Some(&right)).unwrap(), Some(3));
    assert!(matches!(open(Some(&passphrase("correct horsf"))), Err(StoreError::WrongPassphrase)));
    assert!(matches!(open(None), Err(StoreError::NeedsPassphrase)));
    assert!(Passphrase::new(Zeroizing::new(Vec::new())).is_none());
    assert_eq!(format!("{right:?}"), "Passphrase");

    let (machine, _store) = fresh();
    assert_eq!(Store::status(machine.path()).unwrap(), Status::Open);
    assert!(matches!(Store::open(machine.path(), Some(&right)), Err(StoreError::NoPassphrase)));
}

#[test]
fn a_passphrase_is_changed_and_taken_away() {
    let (home, mut store) = fresh();
    mark_with(&mut store, 4);
    let (one, two) = (passphrase("one"), passphrase("two"));
    let opens =
        |given: Option<&Passphrase>| Store::open(home.path(), given).is_ok_and(|mut s| cursor(&mut s) == Some(4));
    store.change_passphrase(Some(&one), Cost::FLOOR).unwrap();
    assert!(opens(Some(&one)) && !opens(None));
    store.change_passphrase(Some(&two), Cost::FLOOR).unwrap();
    assert!(opens(Some(&two)) && !opens(Some(&one)));
    store.change_passphrase(None, Cost::FLOOR).unwrap();
    assert!(opens(None) && !opens(Some(&two)));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 3, "no slot is left over");
    assert_eq!(cursor(&mut store), Some(4), "the open store goes on");
}

#[test]
fn an_interrupted_change_ends_with_a_passphrase() {
    let (home, mut store) = fresh();
    let machine = fs::read(home.path().join("machine.slot")).unwrap();
    let one = passphrase("one");
    store.change_passphrase(Some(&one), Cost::FLOOR).unwrap();
    // As after a crash between the new slot and the end of the old one, in either direction.
    let both = home.path().join("machine.slot");
    fs::write(&both, machine).unwrap();
    set_mode(&both, 0o600);
    assert_eq!(Store::status(home.path()).unwrap(), Status::NeedsPassphrase);
    assert!(Store::open(home.path(), None).is_err());
    assert!(Store::open(home.path(), Some(&passphrase("two"))).is_err() && both.exists());
    Store::open(home.path(), Some(&one)).unwrap();
    assert!(!both.exists());

    // Another process has taken the passphrase away while this one was checking it: what is left stays.
    store.change_passphrase(None, Cost::FLOOR).unwrap();
    crate::store::slots::tidy(home.path()).unwrap();
    Store::open(home.path(), None).unwrap();
}

#[test]
fn a_creation_can_be_interrupted_anywhere() {
    let (home, mut store) = fresh();
    mark_with(&mut store, 1);
    drop(store);
    let at = |home: &TempDir, name: &str| home.path().join(name);

    // Before the slot has its name: nothing is there yet, and it is begun anew.
    for leftover in ["store.db.new", "store.db.new-journal", "machine.slot.new"] {
        let half = temporary();
        fs::write(at(&half, leftover), b"half").unwrap();
        set_mode(&at(&half, leftover), 0o600);
        assert_eq!(Store::status(half.path()).unwrap(), Status::Missing, "{leftover}");
        assert!(matches!(Store::open(half.path(), None), Err(StoreError::NotThere(_))));
        mark_with(&mut Store::create(half.path(), None, Cost::FLOOR).unwrap(), 1);
        assert!(!at(&half, leftover).exists(), "{leftover}");
    }

    // Before the database has its name: opening gives it.
    let half = copy_of(home.path());
    fs::rename(at(&half, "store.db"), at(&half, "store.db.new")).unwrap();
    assert_eq!(Store::status(half.path()).unwrap(), Status::Open);
    assert!(matches!(Store::create(half.path(), None, Cost::FLOOR), Err(StoreError::Exists(_))));
    assert_eq!(cursor(&mut again(&half)), Some(1));
    assert_eq!(cursor(&mut again(&half)), Some(1));

    // What no interruption leaves is refused, and nothing is made over it.
    let lost = copy_of(home.path());
    fs::remove_file(at(&lost, "store.db")).unwrap();
    assert!(matches!(Store::open(lost.path(), None), Err(StoreError::Damaged(what)) if what.contains("store.db")));
    let lost = copy_of(home.path());
    fs::remove_file(at(&lost, "machine.slot")).unwrap();
    assert!(matches!(Store::open(lost.path(), None), Err(StoreError::Damaged(what)) if what.contains("slot")));
    assert!(matches!(Store::create(lost.path(), None, Cost::FLOOR), Err(StoreError::Damaged(_))));
    assert!(at(&lost, "store.db").exists());
}

#[test]
fn a_kill_in_the_middle_of_a_commit_leaves_the_old_state() {
    let (home, mut store) = fresh();
    mark_with(&mut store, 1);
    // The cache of pages spills, so that the file itself is half written when the copy is taken.
    store.sql.pragma_update(None, "cache_size", 10).unwrap();
    let copy = store
        .transact(|tx| {
            tx.set_cursor(&target("bob"), 2);
            for id in 0..200 {
                tx.record(entry("bob", id, &"x".repeat(2000)))?;
            }
            assert!(home.path().join("store.db-journal").exists(), "the cache has spilled");
            Done::Ok(copy_of(home.path()))
        })
        .unwrap();
    assert!(copy.path().join("store.db-journal").exists());
    let mut killed = again(&copy);
    assert_eq!(cursor(&mut killed), Some(1));
    assert!(killed.transact(|tx| tx.entry(&target("bob"), 1)).unwrap().is_none());
    assert_eq!(cursor(&mut store), Some(2));
}

#[test]
fn a_restored_copy_is_an_older_state() {
    let (home, mut store) = fresh();
    mark_with(&mut store, 1);
    let backup = copy_of(home.path());
    mark_with(&mut store, 2);
    assert_eq!(cursor(&mut again(&backup)), Some(1));

    // Over the running process, as a new file and in place.
    let (from, to) = (backup.path().join(FILE), home.path().join(FILE));
    fs::copy(&from, home.path().join("restored")).unwrap();
    fs::rename(home.path().join("restored"), &to).unwrap();
    assert_eq!(cursor(&mut store), Some(1));
    mark_with(&mut store, 5);
    assert_eq!(cursor(&mut again(&home)), Some(5), "what is written goes to the file that is there");
}

#[test]
fn what_others_can_reach_is_refused_with_the_command_to_type() {
    let (home, store) = fresh();
    drop(store);
    let refusal = |path: &Path, bad: u32, good: u32| {
        set_mode(path, bad);
        let error = Store::open(home.path(), None).err().unwrap();
        let failure = crate::error::Failure::from(error);
        set_mode(path, good);
        failure.hint.unwrap()
    };
    assert_eq!(refusal(home.path(), 0o750, 0o700), format!("type: chmod 700 {}", home.path().display()));
    let slot = home.path().join("machine.slot");
    assert_eq!(refusal(&slot, 0o604, 0o600), format!("type: chmod 600 {}", slot.display()));
    let file = home.path().join(FILE);
    assert_eq!(refusal(&file, 0o640, 0o600), format!("type: chmod 600 {}", file.display()));
    Store::open(home.path(), None).unwrap();

    set_mode(home.path(), 0o755);
    let other = home.path().join("inner");
    fs::create_dir(&other).unwrap();
    set_mode(&other, 0o755);
    assert!(matches!(Store::create(&other, None, Cost::FLOOR), Err(StoreError::Exposed { mode: 0o755, .. })));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    let file = home.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(Store::create(&file, None, Cost::FLOOR), Err(StoreError::Io { .. })));
}

#[test]
fn a_locked_store_is_waited_for_and_then_reported() {
    let (home, store) = fresh();
    let lock = Lock::take(home.path()).unwrap();
    assert!(matches!(Lock::within(home.path(), Duration::ZERO), Err(StoreError::Busy)));
    drop(lock);
    drop(Lock::within(home.path(), Duration::ZERO).unwrap());
    drop(store);

    // A lock file that was taken away does not split the lock.
    let lock = Lock::take(home.path()).unwrap();
    fs::remove_file(home.path().join("lock")).unwrap();
    let second = Lock::within(home.path(), Duration::ZERO).unwrap();
    assert!(matches!(Lock::within(home.path(), Duration::ZERO), Err(StoreError::Busy)));
    drop((lock, second));
}

#[test]
fn the_pragmas_are_what_the_design_says() {
    let (_home, store) = fresh();
    let number = |name: &str| store.sql.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    let journal: String = store.sql.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(journal, "delete");
    assert_eq!(number("secure_delete"), 1);
    assert_eq!(number("synchronous"), 3, "EXTRA: FULL, and the directory");
    assert_eq!(number("temp_store"), 2);
    assert_eq!(number("trusted_schema"), 0);
    assert_eq!(number("cell_size_check"), 1);
}
