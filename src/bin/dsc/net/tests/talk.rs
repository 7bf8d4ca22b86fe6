//! What a server may say, and what becomes of it.

use std::os::fd::AsFd as _;

use super::*;
use crate::error::{Exit, Failure};

fn lost<T: std::fmt::Debug>(result: Result<T, Lost>) -> String {
    match result {
        Err(Lost::Network(why)) => why,
        other => panic!("expected a lost connection, got {other:?}"),
    }
}

fn event(connection: &mut Connection) -> String {
    match connection.next_event(None, Some(Instant::now() + PATIENCE)).unwrap() {
        Wake::Event(event) => event,
        other => panic!("expected an event, got {other:?}"),
    }
}

/// What comes of opening a connection to a server that begins so, over TLS.
fn greeted_with(first: &'static [u8]) -> OpenError {
    let fake = Fake::serve(&Identity::own(), 1, move |peer| {
        let _ = peer.try_say(first);
        peer.half_close();
        peer.wait_for_end();
    });
    let error = Connection::open(&fake.endpoint, &Home::new().trust(), PATIENCE).map(drop).unwrap_err();
    fake.finish();
    error
}

#[test]
fn other_servers_are_told_apart() {
    for (first, what) in [
        (&b"220 mail.example ESMTP ready\r\n"[..], "it says \"220 mail.example ESMTP ready\""),
        (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", "it says \"HTTP/1.1 400 Bad Request\""),
        (b"\x1b]0;owned\x07\n", "it says \"\\u{1b}]0;owned\\u{7}\""),
        (b"* hello downstream/2 server=x\n", "it speaks downstream/2, and this program downstream/1"),
        (
            b"* hello downstream/1 max-line=many\n",
            "its greeting is broken: a line of the kind hello has no max-line that can be read",
        ),
        (b"\xff\xfe\n", "it begins with something that is no line of text"),
        (&[b'x'; 5000], "it begins with something that is no line of text"),
        (b"", "it closed the connection without a greeting"),
        (b"* hello downstream/1 no line ending", "it closed the connection without a greeting"),
    ] {
        let error = greeted_with(first);
        assert!(matches!(error, OpenError::NotDownStream { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.ends_with(what), "{text}");
        let failure = Failure::from(error);
        assert!(failure.exit == Exit::Network && failure.hint.is_some_and(|hint| hint.contains("7667")));
    }
    for (first, what) in [
        (&b"ERR * busy retry-after=3 :no room\n"[..], "busy: no room"),
        (b"* bye shutdown :come back\x1b\n", "come back\\u{1b}"),
        (b"* bye shutdown\n", "shutdown"),
    ] {
        let error = greeted_with(first);
        assert!(matches!(error, OpenError::Refused { .. }) && error.to_string().ends_with(what), "{error}");
    }
}

#[test]
fn servers_without_tls_are_told() {
    for first in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"220 mail.example ESMTP\r\n", b"SSH-2.0-OpenSSH_9.9\r\n"] {
        let fake = Fake::raw(1, move |mut socket| {
            socket.write_all(first).unwrap();
            let _ = socket.read_to_end(&mut Vec::new());
        });
        let error = Connection::open(&fake.endpoint, &Home::new().trust(), PATIENCE).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::NotTls(_)), "{error:?}");
        fake.finish();
    }
    let fake = Fake::raw(1, drop);
    let error = Connection::open(&fake.endpoint, &Home::new().trust(), PATIENCE).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Failed { .. }), "{error:?}");
    fake.finish();
}

#[test]
fn silent_and_absent_servers() {
    let soon = Duration::from_millis(50);
    // Nothing at all, and TLS but no greeting.
    let silent = Fake::raw(1, |mut socket| drop(socket.read_to_end(&mut Vec::new())));
    let error = Connection::open(&silent.endpoint, &Home::new().trust(), soon).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Slow { .. }), "{error:?}");
    silent.finish();
    let waiting = Fake::serve(&Identity::own(), 1, Peer::wait_for_end);
    let error = Connection::open(&waiting.endpoint, &Home::new().trust(), Duration::from_millis(500)).map(drop);
    assert!(matches!(error, Err(OpenError::Slow { .. })), "{error:?}");
    waiting.finish();
    // Nobody listens at a port that is taken and no more.
    let taken = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&taken, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = std::net::SocketAddr::try_from(rustix::net::getsockname(&taken).unwrap()).unwrap();
    let endpoint = Endpoint::parse(&address.to_string()).unwrap();
    let error = Connection::open(&endpoint, &Home::new().trust(), PATIENCE).map(drop).unwrap_err();
    assert!(matches!(&error, OpenError::Unreachable { tried, .. } if tried.len() == 1), "{error:?}");
    assert_eq!(Failure::from(error).exit, Exit::Network);
}

#[test]
fn commands_are_pipelined_and_answered_in_order() {
    const COUNT: usize = 200;
    let (mut connection, fake) = connected(|peer| {
        // Nothing is answered before a whole window has come.
        let mut waiting: Vec<(String, String)> = (0..dialogue::WINDOW).map(|_| peer.command()).collect();
        for n in 0..COUNT {
            let (label, line) = waiting.remove(0);
            assert_eq!(line, format!("/ping {n}"));
            peer.say(&format!("* notice :{n}\n- row {n}\nOK ping@{label} :{n}\n"));
            if n + dialogue::WINDOW < COUNT {
                waiting.push(peer.command());
            }
        }
        peer.wait_for_end();
    });
    let commands: Vec<String> = (0..COUNT).map(|n| format!("/ping {n}")).collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let answers = connection.ask_all(&commands).unwrap();
    assert_eq!(answers.len(), COUNT);
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.rows, [format!("row {n}")]);
        assert_eq!(answer.reply.unwrap().text, Some(n.to_string()));
        assert_eq!(event(&mut connection), format!("notice :{n}"));
    }
    drop(connection);
    fake.finish();
}

#[test]
fn a_transfer_keeps_a_window_full_and_holds_no_more() {
    const COUNT: usize = 300;
    let body = "x".repeat(87_000);
    let (mut connection, fake) = connected(|peer| {
        let (label, _) = peer.command();
        peer.say(&format!("OK login@{label}\n"));
        let mut waiting: Vec<(String, String)> = Vec::new();
        let mut bytes = 0;
        // As many come unasked as the bytes of the window allow.
        while bytes < dialogue::WINDOW_BYTES {
            let command = peer.command();
            bytes += command.1.len();
            waiting.push(command);
        }
        assert!(waiting.len() < dialogue::WINDOW);
        for n in 0..COUNT {
            let (label, line) = waiting.remove(0);
            assert!(line.starts_with(&format!("/chunk {n} x")));
            // Each answer is as long as a piece of a file that is read.
            peer.say(&format!("- row {}\nOK chunk@{label} n={n}\n", "y".repeat(250_000)));
            if n + waiting.len() + 1 < COUNT {
                waiting.push(peer.command());
            }
        }
        let (label, _) = peer.command();
        peer.say(&format!("OK ping@{label}\n"));
        peer.wait_for_end();
    });
    connection.ask("/login a b").unwrap().reply.unwrap();
    connection.ignore_events();
    let (mut made, mut taken) = (0, 0);
    let mut next = || {
        made += 1;
        Ok((made <= COUNT).then(|| format!("/chunk {} {body}", made - 1)))
    };
    let mut take = |answer: Answer| {
        assert_eq!(answer.reply.unwrap().key("n"), Some(taken.to_string().as_str()));
        taken += 1;
        Ok(())
    };
    connection.stream(&mut next, &mut take).unwrap();
    assert_eq!(taken, COUNT);
    assert!(connection.ask("/ping").unwrap().reply.is_ok());
    drop(connection);
    fake.finish();
}

#[test]
fn a_transfer_that_fails_leaves_a_connection_that_works() {
    for fails_in_next in [true, false] {
        let (mut connection, fake) = connected(|peer| {
            loop {
                let (label, line) = peer.command();
                if line.starts_with("/quit") {
                    break;
                }
                peer.say(&format!("OK ping@{label} :{line}\n"));
            }
        });
        let (mut made, mut taken) = (0, 0);
        let why = || Failure::failed("the source has changed");
        let mut next = || {
            made += 1;
            if fails_in_next && made > 100 { Err(why()) } else { Ok(Some(format!("/ping {made}"))) }
        };
        let mut take = |_: Answer| {
            taken += 1;
            if !fails_in_next && taken == 10 { Err(why()) } else { Ok(()) }
        };
        assert_eq!(connection.stream(&mut next, &mut take), Err(why()));
        assert!(if fails_in_next { (36..=100).contains(&taken) } else { taken == 10 }, "{taken}");
        let answer = connection.ask("/ping last").unwrap();
        assert_eq!(answer.reply.unwrap().text.as_deref(), Some("/ping last"));
        connection.ask("/quit").unwrap_err();
        fake.finish();
    }
}

#[test]
fn a_transfer_notices_that_the_connection_is_lost() {
    let (mut connection, fake) = connected(|peer| {
        for _ in 0..3 {
            let (label, _) = peer.command();
            peer.say(&format!("OK ping@{label}\n"));
        }
        peer.cut();
    });
    let mut taken = 0;
    let mut take = |_: Answer| {
        taken += 1;
        Ok(())
    };
    let failure = connection.stream(&mut || Ok(Some("/ping".to_owned())), &mut take).unwrap_err();
    assert_eq!((failure.exit, taken), (Exit::Network, 3));
    let mut made = 0;
    let mut next = || {
        made += 1;
        Ok(Some("/ping".to_owned()))
    };
    assert_eq!(connection.stream(&mut next, &mut |_| Ok(())).unwrap_err().exit, Exit::Network);
    assert_eq!(made, 0);
    fake.finish();
}

#[test]
fn refusals_of_both_sides_keep_their_places() {
    let (mut connection, fake) = connected(|peer| {
        for reply in ["OK ping@LABEL :a", "ERR msg@LABEL no-such-user :nobody", "OK ping@LABEL :b"] {
            let (label, _) = peer.command();
            peer.say(&format!("{}\n", reply.replace("LABEL", &label)));
        }
        peer.wait_for_end();
    });
    let long = format!("/ping {}", "x".repeat(5000));
    let answers = connection.ask_all(&["/ping a", "not a command", "/msg x y", &long, "/ping b"]).unwrap();
    let codes: Vec<String> = answers
        .into_iter()
        .map(|answer| answer.reply.map_or_else(|refusal| refusal.code, |reply| reply.text.unwrap()))
        .collect();
    assert_eq!(codes, ["a", "syntax", "no-such-user", "too-long", "b"]);
    assert!(connection.ask_all(&[]).unwrap().is_empty());
    drop(connection);
    fake.finish();
}

#[test]
fn large_commands_and_answers_pass_both_ways_at_once() {
    let body = "y".repeat(90_000);
    let (mut connection, fake) = connected(|peer| {
        let (label, _) = peer.command();
        peer.say(&format!("OK login@{label} user=a unread=0\n"));
        // It writes more than the sockets hold before it reads on.
        for _ in 0..100 {
            let (label, line) = peer.command();
            peer.say(&format!("- {line}\nOK ping@{label}\n"));
        }
        peer.wait_for_end();
    });
    connection.ask("/login a b").unwrap().reply.unwrap();
    let command = format!("/ping {body}");
    for answer in connection.ask_all(&vec![command.as_str(); 100]).unwrap() {
        assert_eq!(answer.rows, std::slice::from_ref(&command));
    }
    drop(connection);
    fake.finish();
}

/// Says `piece` until the client leaves.
fn endless(piece: &'static str) -> String {
    let (mut connection, fake) = connected(move |peer| {
        let (label, _) = peer.command();
        let block = piece.replace("LABEL", &label).repeat(1000);
        while peer.try_say(block.as_bytes()).is_ok() {}
    });
    let why = lost(connection.ask("/ping"));
    assert_eq!(lost(connection.ask("/ping")), why, "it stays lost");
    // Behind what came before.
    let end = (0..=dialogue::EVENTS_MAX).find_map(|_| connection.next_event(None, None).err());
    assert_eq!(end, Some(Lost::Network(why.clone())));
    drop(connection);
    fake.finish();
    why
}

#[test]
fn endless_servers_come_to_an_end() {
    let why = endless("no line ending here ");
    assert!(why.ends_with("does not keep to the protocol: it sent a line of more than 262144 bytes"), "{why}");
    let why = endless("* typing #r somebody-with-a-long-name-to-get-there-sooner\n");
    assert!(why.contains("it sent more than 100000 events"), "{why}");
    let why = endless("- row\n");
    assert!(why.contains("its answer to /ping is longer than"), "{why}");
    let why = endless("OK ping@LABEL\n");
    assert!(why.contains("which was not asked"), "{why}");
    let why = endless("\n");
    assert!(why.contains("it said \"\""), "{why}");
    let why = endless("\0\n");
    assert!(why.contains("no line of text"), "{why}");
}

#[test]
fn a_server_that_ends_in_the_middle_of_an_answer() {
    for (end, what) in [(Peer::half_close as fn(&mut Peer), "the server closed it"), (Peer::cut, "it was cut")] {
        let (mut connection, fake) = connected(move |peer| {
            peer.command();
            peer.say("* notice :before\n- row\nOK ping@");
            end(peer);
            peer.wait_for_end();
        });
        let why = lost(connection.ask("/ping"));
        assert!(why.ends_with(what), "{why}");
        assert!(why.contains(&fake.endpoint.to_string()), "{why}");
        assert_eq!(event(&mut connection), "notice :before", "what came before is still given");
        assert_eq!(lost(connection.next_event(None, None)), why);
        drop(connection);
        fake.finish();
    }
}

#[test]
fn a_goodbye_is_the_reason() {
    let (mut connection, fake) = connected(|peer| {
        peer.say("* notice :first\n* bye replaced :by \u{1b}another\n");
        peer.half_close();
        peer.wait_for_end();
    });
    assert_eq!(event(&mut connection), "notice :first");
    assert_eq!(event(&mut connection), "bye replaced :by \u{1b}another");
    let why = lost(connection.next_event(None, None));
    assert!(why.ends_with("the server ended it: replaced: by \\u{1b}another"), "{why}");
    drop(connection);
    fake.finish();
}

#[test]
fn answers_that_came_before_the_end_count() {
    let (mut connection, fake) = connected(|peer| {
        let (label, _) = peer.command();
        peer.say(&format!("OK ping@{label} :x\n"));
        peer.half_close();
        peer.wait_for_end();
    });
    assert_eq!(connection.ask("/ping").unwrap().reply.unwrap().text.as_deref(), Some("x"));
    assert!(lost(connection.ask("/ping")).ends_with("the server closed it"));
    drop(connection);
    fake.finish();
}

#[test]
fn a_slow_server_is_waited_for_and_a_silent_one_is_not() {
    let (mut connection, fake) = connected(|peer| {
        let (label, _) = peer.command();
        for byte in format!("- row\nOK ping@{label} :slow\n").bytes() {
            peer.try_say(&[byte]).unwrap();
        }
        peer.command();
        peer.wait_for_end();
    });
    assert_eq!(connection.ask("/ping").unwrap().rows, ["row"]);
    connection.times.silence = Duration::from_millis(50);
    assert!(lost(connection.ask("/ping")).ends_with("the server does not answer"));
    drop(connection);
    fake.finish();
}

#[test]
fn a_trickle_does_not_hold_a_command_for_ever() {
    let (mut connection, fake) = connected(|peer| {
        peer.command();
        while peer.try_say(b"* typing #r a\n").is_ok() {
            std::thread::yield_now();
        }
    });
    connection.ignore_events();
    connection.times.answer = Duration::from_millis(100);
    assert!(lost(connection.ask("/ping")).ends_with("the server does not answer"));
    drop(connection);
    fake.finish();
}

#[test]
fn a_quiet_server_is_asked_whether_it_is_there() {
    let (mut connection, fake) = connected(|peer| {
        let (label, line) = peer.command();
        assert_eq!(line, "/ping");
        peer.say(&format!("OK ping@{label}\n"));
        // The second time it is gone.
        peer.command();
        peer.wait_for_end();
    });
    connection.times.keep_alive = Duration::from_millis(20);
    connection.times.silence = Duration::from_millis(20);
    // The first answer may be slower than this on a busy machine, which is the same end.
    assert!(lost(connection.next_event(None, None)).ends_with("the server does not answer"));
    drop(connection);
    let _ = fake.thread.join();

    let (mut connection, fake) = connected(|peer| {
        for _ in 0..3 {
            let (label, _) = peer.command();
            peer.say(&format!("OK ping@{label}\n"));
        }
        peer.say("* notice :there\n");
        peer.wait_for_end();
    });
    connection.times.keep_alive = Duration::from_millis(1);
    assert_eq!(event(&mut connection), "notice :there");
    // A keep-alive whose answer is still on its way is none of a command's business.
    drop(connection);
    let _ = fake.thread.join();
}

#[test]
fn a_command_behind_a_keep_alive_gets_its_own_answer() {
    let (mut connection, fake) = connected(|peer| {
        let (first, _) = peer.command();
        let (second, line) = peer.command();
        assert_eq!(line, "/whoami");
        peer.say(&format!("OK ping@{first}\nOK whoami@{second} user=a\n"));
        peer.wait_for_end();
    });
    connection.times.keep_alive = Duration::ZERO;
    let soon = Instant::now() + Duration::from_millis(1);
    assert_eq!(connection.next_event(None, Some(soon)), Ok(Wake::Deadline));
    assert_eq!(connection.ask("/whoami").unwrap().reply.unwrap().key("user"), Some("a"));
    drop(connection);
    fake.finish();
}

#[test]
fn other_input_and_deadlines_have_their_turn_among_many_events() {
    let (mut connection, fake) = connected(|peer| {
        peer.say(&"* typing #r a\n".repeat(50));
        peer.wait_for_end();
    });
    let (mut theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_eq!(event(&mut connection), "typing #r a");
    theirs.write_all(b"x").unwrap();
    let past = Some(Instant::now());
    let mut seen = (0, 0, 0);
    while seen.0 < 49 {
        match connection.next_event(Some(ours.as_fd()), past).unwrap() {
            Wake::Event(_) => seen.0 += 1,
            Wake::Input => seen.1 += 1,
            Wake::Deadline => seen.2 += 1,
        }
    }
    assert_eq!(seen, (49, 49, 0));
    // Nothing to read, nothing to hear: the time decides. The other end closed: that is to be read.
    let mut byte = [0];
    (&ours).read_exact(&mut byte).unwrap();
    let mut next =
        || connection.next_event(Some(ours.as_fd()), Some(Instant::now() + Duration::from_millis(5))).unwrap();
    assert_eq!((next(), next()), (Wake::Deadline, Wake::Deadline));
    drop(theirs);
    assert_eq!(next(), Wake::Input);
    drop(connection);
    fake.finish();
}

#[test]
fn nothing_more_is_read_while_events_wait() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (mut connection, fake) = connected(move |peer| {
        // Far more than the sockets and one read hold: this blocks until the client reads on.
        let block = "* typing #r a\n".repeat(1000);
        for _ in 0..2000 {
            peer.say(&block);
        }
        sender.send(()).unwrap();
        peer.wait_for_end();
    });
    for _ in 0..10_000 {
        event(&mut connection);
        assert!(connection.dialogue.queued_events() < 10_000);
    }
    assert!(receiver.try_recv().is_err(), "the server is held back");
    drop(connection);
    let _ = fake.thread.join();
}

#[test]
fn leaving_is_a_command_and_an_end() {
    let (connection, fake) = connected(|peer| {
        let (label, line) = peer.command();
        assert_eq!(line, "/quit");
        peer.say(&format!("OK quit@{label}\n"));
        // An end without a close_notify would be an error here.
        assert_eq!(peer.stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    });
    connection.quit();
    fake.finish();
    // A server that does not answer does not hold anybody.
    let (connection, fake) = connected(Peer::wait_for_end);
    connection.quit();
    fake.finish();
}
