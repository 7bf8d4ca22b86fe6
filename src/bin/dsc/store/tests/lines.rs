//! History, outbox and lines that wait.

use downstream::e2e::name::{Mark as Envelope, RoomId};
use downstream::protocol::{FileId, PostKey};
use proptest::prelude::*;

use super::*;

pub(super) fn post(to: &str, key: &str) -> Outgoing {
    Outgoing {
        line: Line::Post { target: target(to), key: PostKey::parse(key).unwrap(), body: "e2e:AAAA".into() },
        room: Some(RoomId([3; 16])),
        epoch: 4,
        inner: Some(inner(1, "waits")),
        made_ms: 5,
        tries: 6,
    }
}

fn plain(to: &str, id: u64, text: &str) -> Entry {
    Entry { what: What::Plain { text: text.into() }, marks: vec![Mark::Plain], ..entry(to, id, "") }
}

fn failed(to: &str, id: u64) -> Entry {
    Entry { what: What::Failed { code: "no-chain".into() }, marks: vec![], ..entry(to, id, "") }
}

fn ids(entries: &[Entry]) -> Vec<u64> {
    entries.iter().filter_map(|entry| entry.id).collect()
}

#[test]
fn every_kind_of_entry_comes_back() {
    let (home, mut store) = fresh();
    let file = PlainFile { file: FileId(7), size: 1 << 40, sha256: [9; 32], name: "a ☃".into() };
    let file = Entry { what: What::File(file), ..plain("#ops", 5, "") };
    let entries = [entry("bob", 1, "hällo"), plain("bob", 2, "open"), failed("bob", 3), plain("#ops", 2, ""), file];
    for entry in &entries {
        assert_eq!(store.transact(|tx| tx.record(entry.clone())).unwrap(), Recorded::New);
    }
    let mut other = again(&home);
    for entry in entries {
        let id = entry.id.unwrap();
        assert_eq!(other.transact(|tx| tx.entry(&entry.target, id)).unwrap(), Some(entry));
    }
    assert_eq!(other.transact(|tx| tx.entry(&target("bob"), 4)).unwrap(), None);
    assert_eq!(ids(&other.transact(|tx| tx.entries_of_blob(&[9; 32])).unwrap()), [5]);
    assert_eq!(ids(&other.transact(|tx| tx.entries_of_blob(&[8; 32])).unwrap()), [0; 0]);
    assert_eq!(ids(&other.transact(|tx| tx.search(&["☃".into()], None, 9)).unwrap()), [5]);
    assert_eq!(other.transact(|tx| tx.entry(&target("carol"), 1)).unwrap(), None);
    assert_eq!(other.transact(|tx| tx.entry(&target("bob"), u64::MAX)).unwrap(), None);
}

#[test]
fn what_was_opened_stands_under_its_number() {
    let (_home, mut store) = fresh();
    let mut put = |entry: Entry| {
        let (target, id) = (entry.target.clone(), entry.id.unwrap());
        store.transact(|tx| Done::Ok((tx.record(entry)?, tx.entry(&target, id)?.map(|entry| entry.what)))).unwrap()
    };
    let text = entry("bob", 1, "late").what;
    assert_eq!(put(failed("bob", 1)).0, Recorded::New);
    assert_eq!(put(entry("bob", 1, "late")), (Recorded::New, Some(text.clone())), "a failure gives way");
    assert_eq!(put(entry("bob", 1, "late")), (Recorded::Known, Some(text.clone())));
    assert_eq!(put(failed("bob", 1)), (Recorded::Known, Some(text.clone())));
    assert_eq!(put(plain("bob", 1, "other")), (Recorded::Elsewhere, Some(text)), "nothing is overwritten");
    assert_eq!(put(plain("bob", u64::MAX, "beyond")), (Recorded::Elsewhere, None));
    let found = store.transact(|tx| tx.search(&["other".into()], None, 10)).unwrap();
    assert_eq!((found.len(), found[0].id), (1, None), "and nothing is lost");
}

#[test]
fn a_message_sealed_by_hand_gets_its_number_when_it_comes_back() {
    let (home, mut store) = fresh();
    let sealed = Entry { id: None, sender: user("alice"), ..entry("bob", 0, "by hand") };
    let envelope = Envelope([8; 16]);
    store.transact(|tx| tx.record_sealed(sealed.clone(), envelope)).unwrap();
    let mut other = again(&home);
    assert_eq!(other.transact(|tx| tx.came_back(&target("bob"), Envelope([9; 16]), 4, 1)).unwrap(), None);
    assert_eq!(other.transact(|tx| tx.came_back(&target("eve"), envelope, 4, 1)).unwrap(), None);
    other.transact(|tx| tx.record(Entry { what: failed("bob", 4).what, ..failed("bob", 4) })).unwrap();
    let back = other.transact(|tx| tx.came_back(&target("bob"), envelope, 4, 77)).unwrap().unwrap();
    assert_eq!(back, Entry { id: Some(4), time_ms: 77, ..sealed });
    assert_eq!(store.transact(|tx| tx.entry(&target("bob"), 4)).unwrap(), Some(back));
    assert_eq!(other.transact(|tx| tx.came_back(&target("bob"), envelope, 5, 1)).unwrap(), None, "once");
}

#[test]
fn pages_are_cut_from_either_end() {
    let (_home, mut store) = fresh();
    store
        .transact(|tx| {
            for id in [5, 1, 3, 9, 7] {
                tx.record(entry("bob", id, "x"))?;
                tx.record(plain("#ops", id + 1, "y"))?;
            }
            tx.record(Entry { id: None, ..plain("bob", 0, "nowhere") })?;
            Done::Ok(())
        })
        .unwrap();
    let mut page =
        |before, after, limit| ids(&store.transact(|tx| tx.page(&target("bob"), before, after, limit)).unwrap());
    assert_eq!(page(None, None, 3), [5, 7, 9]);
    assert_eq!(page(Some(7), None, 2), [3, 5]);
    assert_eq!(page(None, Some(3), 2), [5, 7]);
    assert_eq!(page(Some(9), Some(1), 10), [3, 5, 7]);
    assert_eq!(page(Some(9), Some(9), 10), [0; 0]);
    assert_eq!(page(Some(u64::MAX), None, 1), [9]);
    assert_eq!(page(None, None, 0), [0; 0]);
    assert!(store.transact(|tx| tx.page(&target("eve"), None, None, 5)).unwrap().is_empty());
}

#[test]
fn searching_finds_all_words_in_any_case() {
    let (_home, mut store) = fresh();
    store
        .transact(|tx| {
            tx.record(entry("bob", 1, "The Cat sat on the mat"))?;
            tx.record(entry("bob", 2, "the dog"))?;
            tx.record(plain("#ops", 3, "ÄPFEL und Katzen"))?;
            tx.record(plain("#ops", 4, "the cat again"))?;
            tx.record(Entry { what: What::Failed { code: "cat".into() }, ..failed("bob", 5) })
        })
        .unwrap();
    let mut find = |words: &[&str], to: Option<&str>, limit| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        ids(&store.transact(|tx| tx.search(&words, to.map(target).as_ref(), limit)).unwrap())
    };
    assert_eq!(find(&["CAT", "the"], None, 10), [1, 4]);
    assert_eq!(find(&["cat"], None, 1), [4]);
    assert_eq!(find(&["äpfel"], None, 10), [3]);
    assert_eq!(find(&["the"], Some("bob"), 10), [1, 2]);
    assert_eq!(find(&["the"], Some("eve"), 10), [0; 0]);
    assert_eq!(find(&["cat", "dog"], None, 10), [0; 0]);
}

#[test]
fn a_message_is_heard_once_whatever_its_number() {
    let (home, mut store) = fresh();
    let from = device("bob", 1);
    let id = |n: u32| downstream::e2e::inner::Inner::parse(&inner(n, "")).unwrap().msg_id;
    store.transact(|tx| tx.record(entry("bob", 3, "x"))).unwrap();
    again(&home)
        .transact(|tx| {
            assert!(tx.heard(&from, id(3))?);
            assert!(!tx.heard(&from, id(4))? && !tx.heard(&device("bob", 2), id(3))?);
            assert!(!tx.heard(&device("carol", 1), id(3))?);
            Done::Ok(())
        })
        .unwrap();
}

#[test]
fn sweeping_takes_the_oldest_in_pieces() {
    let (home, mut store) = fresh();
    store.transact(|tx| (0..10).try_for_each(|id| tx.record(entry("bob", 10 - id, "x")).map(drop))).unwrap();
    let limit = 1_000_000 + 6;
    assert_eq!(store.transact(|tx| tx.sweep(limit, 3)).unwrap(), 3);
    assert_eq!(store.transact(|tx| tx.sweep(limit, 3)).unwrap(), 2);
    assert_eq!(store.transact(|tx| tx.sweep(limit, 3)).unwrap(), 0);
    let left = again(&home).transact(|tx| tx.page(&target("bob"), None, None, 100)).unwrap();
    assert_eq!(ids(&left), [6, 7, 8, 9, 10]);
}

#[test]
fn the_outbox_is_bounded_and_its_numbers_are_never_used_again() {
    let (home, mut store) = fresh();
    let first = store.transact(|tx| tx.queue(post("bob", "aaaaaaaa"))).unwrap();
    store.transact(|tx| tx.sent(first)).unwrap();
    let signal = Outgoing {
        line: Line::Signal { to: user("bob"), body: "e2e:BBBB".into() },
        room: None,
        inner: None,
        ..post("bob", "aaaaaaaa")
    };
    let second = again(&home).transact(|tx| tx.queue(signal.clone())).unwrap();
    assert!(second > first);
    assert_eq!(store.transact(|tx| tx.outbox()).unwrap(), [(second, signal.clone())]);
    let more = Outgoing { tries: 7, ..signal };
    store.transact(|tx| tx.requeue(second, more.clone())).unwrap();
    store.transact(|tx| tx.requeue(first, more.clone())).unwrap();
    assert_eq!(again(&home).transact(|tx| tx.outbox()).unwrap(), [(second, more)]);

    let full = store.transact(|tx| (0..OUTBOX_MAX).try_for_each(|_| tx.queue(post("bob", "aaaaaaaa")).map(drop)));
    assert!(matches!(full, Err(StoreError::Full("outbox"))));
    assert_eq!(store.transact(|tx| tx.outbox()).unwrap().len(), 1, "all or nothing");
}

#[test]
fn the_outbox_is_bounded_in_bytes() {
    let (home, mut store) = fresh();
    store
        .transact(|tx| {
            let first = tx.queue(Outgoing { inner: Some(inner(1, &"x".repeat(9000))), ..post("bob", "aaaaaaaa") })?;
            let second = tx.queue(post("bob", "aaaaaaaa"))?;
            tx.queue(post("bob", "aaaaaaaa"))?;
            tx.requeue(first, post("bob", "aaaaaaaa"))?;
            tx.sent(second)?;
            tx.hold(held(1))?;
            tx.hold(held(2))?;
            let (id, _) = tx.held()?.remove(0);
            tx.release(id)
        })
        .unwrap();
    let volumes = |tx: &mut Tx<'_>| [tx.cache.outbox, tx.cache.held].map(|volume| (volume.rows, volume.bytes));
    let counted = with(&mut store, volumes);
    assert_eq!(counted, with(&mut again(&home), volumes), "what is counted is what is there");
    assert!(counted[0].0 == 2 && counted[0].1 < 9000 && counted[1].0 == 1);

    // As if there were more of them.
    with(&mut store, |tx| {
        tx.cache.outbox.bytes = OUTBOX_BYTES;
        assert!(matches!(tx.queue(post("bob", "aaaaaaaa")), Err(StoreError::Full("outbox"))));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    /// Whatever is put in, sent, tried again and interrupted, by two processes: the outbox is what a
    /// list would be.
    #[test]
    fn the_outbox_keeps_its_order(steps in proptest::collection::vec((0_u8..5, any::<proptest::sample::Index>(), any::<bool>()), 1..40)) {
        let (home, mut one) = fresh();
        let mut two = again(&home);
        let mut model: Vec<(u64, Outgoing)> = Vec::new();
        for (n, (step, which, first)) in steps.into_iter().enumerate() {
            let store = if first { &mut one } else { &mut two };
            let item = Outgoing { made_ms: n as u64, ..post("bob", "aaaaaaaa") };
            match step {
                0 | 1 => {
                    let id = store.transact(|tx| tx.queue(item.clone())).unwrap();
                    model.push((id, item));
                }
                2 if !model.is_empty() => {
                    let (id, _) = model.remove(which.index(model.len()));
                    store.transact(|tx| tx.sent(id)).unwrap();
                }
                3 if !model.is_empty() => {
                    let at = which.index(model.len());
                    store.transact(|tx| tx.requeue(model[at].0, item.clone())).unwrap();
                    model[at].1 = item;
                }
                _ => {
                    let undone: Done = store.transact(|tx| {
                        tx.queue(item.clone())?;
                        model.iter().try_for_each(|(id, _)| tx.sent(*id))?;
                        Err(StoreError::Busy)
                    });
                    prop_assert!(undone.is_err());
                }
            }
            prop_assert_eq!(&store.transact(|tx| tx.outbox()).unwrap(), &model);
        }
        prop_assert!(model.is_sorted_by_key(|(id, _)| *id));
    }
}

pub(super) fn held(id: u64) -> Held {
    Held { target: Some(target("#ops")), id, time_ms: 2, sender: user("bob"), body: "e2e:CCCC".into(), since_ms: id }
}

#[test]
fn lines_wait_once_and_in_order() {
    let (home, mut store) = fresh();
    let signal = Held { target: None, ..held(2) };
    store
        .transact(|tx| {
            for line in [held(2), signal.clone(), held(1), held(2)] {
                assert!(tx.hold(line)?.is_empty());
            }
            Done::Ok(())
        })
        .unwrap();
    let mut other = again(&home);
    let lines = other.transact(|tx| tx.held()).unwrap();
    assert_eq!(lines.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>(), [held(2), signal, held(1)]);
    other.transact(|tx| tx.release(lines[0].0)).unwrap();
    store.transact(|tx| tx.release(lines[0].0)).unwrap();
    assert_eq!(store.transact(|tx| tx.held()).unwrap(), lines[1..]);
    assert!(store.transact(|tx| tx.hold(held(2))).unwrap().is_empty(), "it may wait again");
    assert_eq!(store.transact(|tx| tx.held()).unwrap().len(), 3);
}

#[test]
fn waiting_lines_are_bounded_in_number_bytes_and_age() {
    let (_home, mut store) = fresh();
    let gone = store
        .transact(|tx| {
            let mut gone = Vec::new();
            for id in 0..HELD_MAX as u64 + 2 {
                gone.extend(tx.hold(held(id))?);
            }
            Done::Ok(gone)
        })
        .unwrap();
    assert_eq!(gone, [held(0), held(1)]);
    let old = store.transact(|tx| tx.expire(HELD_KEEP_MS + 5)).unwrap();
    assert_eq!(old, [held(2), held(3), held(4)]);
    let gone = store
        .transact(|tx| {
            // As if the others were longer: two of them must go for a new one.
            let one = tx.cache.held.bytes / tx.cache.held.rows;
            tx.cache.held.bytes = HELD_BYTES + one / 2;
            tx.hold(held(9999))
        })
        .unwrap();
    assert_eq!(gone, [held(5), held(6)]);
}
