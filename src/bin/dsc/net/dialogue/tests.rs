use super::*;

fn sent(dialogue: &mut Dialogue, command: &str) -> String {
    match dialogue.admit(command) {
        Admitted::Send(line) => String::from_utf8(line.to_vec()).unwrap(),
        other => panic!("{command:?} was not admitted: {other:?}"),
    }
}

fn dialogue() -> Dialogue {
    Dialogue::new(131_072)
}

#[test]
fn commands_are_labelled_and_answered_in_order() {
    let mut dialogue = dialogue();
    assert_eq!(sent(&mut dialogue, "/msg bob  two spaces"), "/msg@1 bob  two spaces\n");
    assert_eq!(sent(&mut dialogue, "/Whoami"), "/whoami@2\n");
    assert!(dialogue.is_waiting());
    dialogue.take("* msg 1 T a b :x").unwrap();
    dialogue.take("OK msg@1 id=7 to=bob").unwrap();
    dialogue.take("- odd row :x").unwrap();
    dialogue.take("ERR whoami@2 not-logged-in retry-after=3 :no").unwrap();
    let first = dialogue.take_answer().unwrap();
    assert_eq!(first.reply.unwrap().key("id"), Some("7"));
    let second = dialogue.take_answer().unwrap();
    assert_eq!(second.rows, ["odd row :x"]);
    let refusal = second.reply.unwrap_err();
    assert_eq!((refusal.code.as_str(), refusal.key("retry-after")), ("not-logged-in", Some("3")));
    assert!(dialogue.take_answer().is_none() && !dialogue.is_waiting());
    assert_eq!(dialogue.take_event().as_deref(), Some("msg 1 T a b :x"));
    assert_eq!(dialogue.take_event(), None);
    assert_eq!(dialogue.events_bytes, 0);
}

#[test]
fn what_does_not_fit_the_question_is_a_fault() {
    for (line, what) in [
        ("OK whoami@1 user=a", "it answered \"/whoami@1\" where /ping@1 was next"),
        ("OK ping@2", "it answered \"/ping@2\" where /ping@1 was next"),
        ("OK ping", "it answered \"/ping\" where /ping@1 was next"),
        ("ERR ping busy :x", "it answered \"/ping\" where /ping@1 was next"),
        ("ERR * too-long max=1 :no\u{1b}[2J", "it could not read what was sent: too-long: no\\u{1b}[2J"),
        ("220 mail", "it said \"220 mail\""),
        ("", "it said \"\""),
    ] {
        let mut dialogue = dialogue();
        sent(&mut dialogue, "/ping");
        assert_eq!(dialogue.take(line), Err(what.to_owned()), "{line:?}");
    }
    let mut dialogue = dialogue();
    assert_eq!(dialogue.take("OK ping"), Err("it answered \"ping\", which was not asked".to_owned()));
    assert_eq!(dialogue.take("- row"), Err("it sent a row that belongs to no command: \"row\"".to_owned()));
}

#[test]
fn what_the_server_would_misread_is_not_sent() {
    for bad in ["", "hello", "/", "/ ping", "/ping@x", "/ping\n/quit", "/ping \r", "/ping \0", "/é", "//x"] {
        match dialogue().admit(bad) {
            Admitted::Refused(refusal) => assert_eq!(refusal.code, "syntax", "{bad:?}"),
            other => panic!("{bad:?}: {other:?}"),
        }
    }
}

#[test]
fn the_limit_of_a_line_rises_with_the_login() {
    let mut dialogue = dialogue();
    let fits = format!("/ping {}", "x".repeat(4096 - "/ping@1 \n".len()));
    let long = format!("{fits}x");
    assert_eq!(sent(&mut dialogue, &fits).len(), 4096);
    assert!(matches!(dialogue.admit(&long), Admitted::Later), "its answer has its place behind the first");
    dialogue.take("OK ping@1 :x").unwrap();
    match dialogue.admit(&long) {
        Admitted::Refused(refusal) => {
            assert_eq!((refusal.code.as_str(), refusal.key("max")), ("too-long", Some("4096")));
        }
        other => panic!("{other:?}"),
    }
    sent(&mut dialogue, "/login a b");
    dialogue.take("OK login@2 user=a unread=0").unwrap();
    sent(&mut dialogue, &long);
    dialogue.take("OK ping@3 :x").unwrap();
    assert!(matches!(dialogue.admit(&format!("/ping {}", "x".repeat(131_072))), Admitted::Refused(_)));
    sent(&mut dialogue, "/logout");
    dialogue.take("OK logout@4").unwrap();
    assert!(matches!(dialogue.admit(&long), Admitted::Refused(_)));
}

#[test]
fn a_window_of_commands() {
    let mut dialogue = dialogue();
    for _ in 0..WINDOW {
        assert!(dialogue.has_room());
        sent(&mut dialogue, "/ping");
    }
    assert!(!dialogue.has_room());
    dialogue.take("OK ping@1").unwrap();
    assert!(dialogue.has_room());
}

#[test]
fn keep_alives_are_answered_among_the_others() {
    let mut dialogue = dialogue();
    assert_eq!(dialogue.keep_alive().as_slice(), b"/ping@1\n");
    sent(&mut dialogue, "/back");
    dialogue.take("OK ping@1").unwrap();
    assert!(dialogue.is_waiting() && dialogue.take_answer().is_none());
    dialogue.take("OK back@2").unwrap();
    assert!(dialogue.take_answer().is_some());
}

/// Feeds lines until one is refused; how many were taken.
fn fed(dialogue: &mut Dialogue, line: &str, most: usize) -> (usize, String) {
    for n in 0..=most {
        if let Err(why) = dialogue.take(line) {
            return (n, why);
        }
    }
    panic!("{most} lines were taken");
}

#[test]
fn nothing_grows_without_end() {
    let mut many = dialogue();
    sent(&mut many, "/members #r");
    let (count, why) = fed(&mut many, "- m", ROWS_MAX);
    assert_eq!(count, ROWS_MAX);
    assert_eq!(why, "its answer to /members is longer than 100000 rows or 8 MiB");

    let mut large = dialogue();
    sent(&mut large, "/members #r");
    let (count, _) = fed(&mut large, &format!("- {}", "m".repeat(100_000)), 100);
    assert_eq!(count, ANSWER_MAX / (100_000 + LINE_COST));

    let mut together = dialogue();
    together.begin();
    let row = format!("- {}", "m".repeat(100_000));
    let why = (1..).find_map(|n| {
        sent(&mut together, "/rooms");
        (0..80).find_map(|_| together.take(&row).err()).or_else(|| together.take(&format!("OK rooms@{n}")).err())
    });
    assert!(why.is_some_and(|why| why.contains("/rooms")));
    assert!(together.answered <= ANSWERS_MAX + 100_000 + LINE_COST);

    let reply = |keys| format!("OK ping@1{}", " a=b".repeat(keys));
    for (keys, taken) in [(KEYS_MAX, true), (KEYS_MAX + 1, false)] {
        let mut dialogue = dialogue();
        sent(&mut dialogue, "/ping");
        assert_eq!(dialogue.take(&reply(keys)).is_ok(), taken);
    }

    let mut events = dialogue();
    let (count, why) = fed(&mut events, "* x", EVENTS_MAX);
    assert_eq!(count, EVENTS_MAX);
    assert_eq!(why, "it sent more than 100000 events or 16 MiB of them before it answered");
    let mut events = dialogue();
    let (count, _) = fed(&mut events, &format!("* {}", "x".repeat(100_000)), 200);
    assert_eq!(count, EVENTS_BYTES_MAX / (100_000 + LINE_COST));

    let mut ignored = dialogue();
    ignored.take("* x").unwrap();
    ignored.ignore_events();
    assert!(ignored.take_event().is_none());
    for _ in 0..=EVENTS_MAX {
        ignored.take("* x").unwrap();
    }
    ignored.take("* bye too-slow :sorry\u{7}").unwrap();
    assert_eq!((ignored.events.len(), ignored.bye()), (0, Some("too-slow: sorry\\u{7}")));
}

#[test]
fn a_quote_is_short_and_harmless() {
    assert_eq!(quoted("a\u{1b}b"), "\"a\\u{1b}b\"");
    assert_eq!(quoted(&"é".repeat(100)), format!("\"{}…\"", "é".repeat(60)));
}

proptest::proptest! {
    /// Whatever a server says, it is taken or refused.
    #[test]
    fn any_lines_are_taken_or_refused(lines in proptest::collection::vec("(OK |ERR |- |\\* )?(ping|login|bye|msg)?(@[12])? ?[^\\n\\r\\x00]{0,30}", 0..20)) {
        let mut dialogue = dialogue();
        sent(&mut dialogue, "/ping");
        sent(&mut dialogue, "/login a b");
        for line in lines {
            if dialogue.take(&line).is_err() {
                break;
            }
        }
    }
}
