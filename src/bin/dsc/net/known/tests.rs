use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn fingerprint(byte: u8) -> Fingerprint {
    Fingerprint::parse(&format!("{byte:02x}").repeat(32)).unwrap()
}

fn pinned(byte: u8) -> Known {
    Known::Certificate(fingerprint(byte))
}

fn server(text: &str) -> Endpoint {
    Endpoint::parse(text).unwrap()
}

#[test]
fn a_new_file_is_private_and_explains_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/home/known_servers");
    assert_eq!(look_up(&path, &server("a.example")).unwrap(), []);
    assert_eq!(remember(&path, &server("a.example"), pinned(1), Enter::First).unwrap(), Remembered::Yes);
    assert_eq!(remember(&path, &server("[::1]:9"), Known::Roots, Enter::First).unwrap(), Remembered::Yes);
    let text = fs::read_to_string(&path).unwrap();
    let one = fingerprint(1);
    assert_eq!(text, format!("{HEADER}a.example:7667 {one}\n[::1]:9 roots\n"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(directory.path().join("deep/home").as_path())), (0o600, 0o700));
    assert_eq!(look_up(&path, &server("A.Example:7667")).unwrap(), [pinned(1)]);
    assert_eq!(look_up(&path, &server("[0::1]:9")).unwrap(), [Known::Roots]);
    assert_eq!(look_up(&path, &server("[::1]:10")).unwrap(), []);
}

#[test]
fn what_a_person_wrote_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("known_servers");
    let (one, two) = (fingerprint(1), fingerprint(2));
    let text = format!(
        "# mine\n\n  # indented\nA.example {one} # at home\nb.example sha512:later\nc.example roots\na.example:7667 {two}"
    );
    fs::write(&path, &text).unwrap();
    let a = server("a.example");
    assert_eq!(look_up(&path, &a).unwrap(), [pinned(1), pinned(2)]);
    assert_eq!(remember(&path, &a, pinned(2), Enter::First).unwrap(), Remembered::Yes);
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "nothing to write");
    let other = Remembered::Otherwise(vec![pinned(1), pinned(2)]);
    assert_eq!(remember(&path, &a, pinned(3), Enter::First).unwrap(), other);
    assert_eq!(remember(&path, &a, pinned(3), Enter::Replace).unwrap(), Remembered::Yes);
    let three = fingerprint(3);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("# mine\n\n  # indented\na.example:7667 {three}\nb.example sha512:later\nc.example roots\n")
    );
    // What is said of b is newer than this program: it is refused for b, and only for b.
    assert!(matches!(look_up(&path, &server("b.example")), Err(KnownError::Line { line: 5, .. })));
}

#[test]
fn a_line_that_cannot_be_read_is_no_reason_to_believe_anybody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("known_servers");
    let one = fingerprint(1);
    for bad in
        [format!("a.example:7667{one}"), "a.example".to_owned(), format!("a.example {one} x"), format!("a b {one}")]
    {
        fs::write(&path, format!("# x\n{bad}\n")).unwrap();
        for name in ["a.example", "z.example"] {
            assert!(matches!(look_up(&path, &server(name)), Err(KnownError::Line { line: 2, .. })), "{bad}");
        }
        assert!(remember(&path, &server("z.example"), Known::Roots, Enter::First).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("# x\n{bad}\n"));
    }
    fs::write(&path, [0xff, b'\n']).unwrap();
    assert!(matches!(look_up(&path, &server("a")), Err(KnownError::Read { .. })));
    fs::write(&path, vec![b'#'; 1_048_577]).unwrap();
    assert!(matches!(look_up(&path, &server("a")), Err(KnownError::Read { .. })));
}

#[test]
fn a_link_stays_a_link_and_a_leftover_does_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let (real, path) = (directory.path().join("dotfiles"), directory.path().join("known_servers"));
    fs::write(&real, "# here\n").unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    fs::write(directory.path().join("dotfiles.new"), "half a fi").unwrap();
    remember(&path, &server("a"), Known::Roots, Enter::First).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&real).unwrap(), "# here\na:7667 roots\n");
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("known_servers");
    std::thread::scope(|scope| {
        for writer in 0..8u8 {
            let path = &path;
            scope.spawn(move || {
                for n in 0..5 {
                    let server = server(&format!("s{writer}-{n}.example"));
                    assert_eq!(remember(path, &server, pinned(writer), Enter::First).unwrap(), Remembered::Yes);
                    assert_eq!(look_up(path, &server).unwrap(), [pinned(writer)]);
                }
            });
        }
        // Everybody at the same place: one of them is first, and all others learn who.
        let contest: Vec<_> = (0..8u8)
            .map(|writer| {
                let path = &path;
                scope.spawn(move || remember(path, &server("one.example"), pinned(writer), Enter::First).unwrap())
            })
            .collect();
        let results: Vec<Remembered> = contest.into_iter().map(|thread| thread.join().unwrap()).collect();
        let winner = look_up(&path, &server("one.example")).unwrap();
        assert_eq!(results.iter().filter(|result| **result == Remembered::Yes).count(), 1);
        assert_eq!(results.iter().filter(|result| **result == Remembered::Otherwise(winner.clone())).count(), 7);
    });
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 41);
}
