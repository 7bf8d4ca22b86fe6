//! Bad input, tried for real: whatever one client does, the others notice nothing, memory stays
//! bounded, and the daemon is alive at the end.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first thing that is wrong")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::client::{self, Identity, wait_until};
use support::{Client, DEADLINE, Daemon, Ended, Home, Link, Options};

/// What the daemon may gain over a flood that must not be kept. Twice the largest buffers of one
/// connection would be under a mebibyte; the rest is room for the allocator.
const FLOOD_GAIN_KIB: u64 = 24 * 1024;

/// Two people who are there all the while and must notice nothing.
struct Bystanders {
    alice: Client,
    bob: Client,
    said: u64,
}

impl Bystanders {
    fn new(daemon: &Daemon) -> Bystanders {
        let mut alice = Client::connect(daemon.address());
        alice.ask("/register alice password-alice", "OK register user=alice");
        let mut bob = Client::connect(daemon.address());
        bob.ask("/register bob password-bob", "OK register user=bob");
        Bystanders { alice, bob, said: 0 }
    }

    /// A message each way, and nothing else came meanwhile.
    fn talk(&mut self) {
        self.said += 1;
        let said = self.said;
        self.alice.ask(&format!("/msg bob ping {said}"), "OK msg id=<ID> time=<TIME> to=bob peer=online");
        self.bob.expect(&format!("* msg <ID> <TIME> bob alice :ping {said}"));
        self.bob.ask(&format!("/msg alice pong {said}"), "OK msg id=<ID> time=<TIME> to=alice peer=online");
        self.alice.expect(&format!("* msg <ID> <TIME> alice bob :pong {said}"));
    }
}

/// Everything a raw connection answers until it ends.
fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(n) => answer.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            // The daemon may close while bytes of ours are still unread, which is a reset.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return answer,
            Err(e) => panic!("the daemon kept the connection: {e}"),
        }
    }
}

/// At most a TLS alert: content type 21, two bytes of version, a length of 2.
fn assert_alert_at_most(answer: &[u8]) {
    assert!(answer.is_empty() || (answer.len() == 7 && answer.starts_with(&[21, 3])), "{answer:?}");
}

/// Bytes that look random and are the same in every run (xorshift64*).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

/// The ClientHello that the tests' client would send.
fn client_hello() -> Vec<u8> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || drop(Client::try_raw(address, &Options::default())));
    let (mut socket, _) = listener.accept().unwrap();
    let mut head = [0; 5];
    socket.read_exact(&mut head).unwrap();
    let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    socket.read_exact(&mut hello).unwrap();
    drop(socket);
    client.join().unwrap();
    [head.as_slice(), &hello].concat()
}

#[test]
fn bytes_that_are_no_tls() {
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    for seed in 1..=50 {
        let mut socket = TcpStream::connect(daemon.address()).unwrap();
        let length = usize::try_from(seed * 97 % 3000).unwrap() + 1;
        // The daemon may close at the first wrong byte, so that writing the rest may fail.
        let _ = socket.write_all(&noise(seed, length));
        let _ = socket.shutdown(Shutdown::Write);
        assert_alert_at_most(&read_to_end(&mut socket));
        if seed % 10 == 0 {
            bystanders.talk();
        }
    }
    for text in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "/register mallory password-mallory\n", "\n", "\0\0\0\0\0\0\0\0"]
    {
        let mut socket = TcpStream::connect(daemon.address()).unwrap();
        let _ = socket.write_all(text.as_bytes());
        let _ = socket.shutdown(Shutdown::Write);
        assert_alert_at_most(&read_to_end(&mut socket));
    }
    bystanders.talk();
}

#[test]
fn tls_that_stops_half_way() {
    let home = Home::new("[limits]\nhandshake_seconds = 1\n");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let hello = client_hello();
    let mut waiting = Vec::new();
    for cut in [1, 4, 5, 6, 43, hello.len() / 2, hello.len() - 1, hello.len()] {
        let mut socket = TcpStream::connect(daemon.address()).unwrap();
        socket.write_all(&hello[..cut]).unwrap();
        waiting.push(socket);
        // And one that goes away at the same place.
        let mut gone = TcpStream::connect(daemon.address()).unwrap();
        gone.write_all(&hello[..cut]).unwrap();
    }
    bystanders.talk();
    for mut socket in waiting {
        read_to_end(&mut socket); // The deadline of the handshake ends it.
    }
    // A hello with one wrong byte at every place, each answered with at most an alert or a handshake that
    // does not come to its end.
    for at in (0..hello.len()).step_by(7) {
        let mut bent = hello.clone();
        bent[at] ^= 0x55;
        let mut socket = TcpStream::connect(daemon.address()).unwrap();
        let _ = socket.write_all(&bent);
        let _ = socket.shutdown(Shutdown::Write);
        read_to_end(&mut socket);
    }
    bystanders.talk();
}

#[test]
fn two_thousand_connections_that_say_nothing() {
    allow_files(8192);
    let home = Home::new("[limits]\nhandshake_seconds = 600\n");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let before = daemon.memory_kib("VmRSS");
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..2000 {
        silent.push(TcpStream::connect(daemon.address()).unwrap());
    }
    bystanders.talk();
    // Someone new still gets in, behind all of them.
    let mut carol = Client::connect(daemon.address());
    carol.ask("/register carol password-carol", "OK register user=carol");
    let gain = daemon.memory_kib("VmRSS").saturating_sub(before);
    assert!(gain < 2000 * 64, "2000 silent connections cost {gain} KiB");
    drop(silent);
    bystanders.talk();
}

#[test]
fn a_crowd_that_begins_handshakes() {
    allow_files(8192);
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let hello = client_hello();
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..300 {
        let mut socket = TcpStream::connect(daemon.address()).unwrap();
        socket.write_all(&hello).unwrap();
        silent.push(socket);
    }
    bystanders.talk();
    drop(silent);
    bystanders.talk();
}

#[test]
fn one_byte_at_a_time() {
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    // Each byte is a TLS record and a segment of its own.
    let mut slow = Client::connect(daemon.address());
    for byte in "/register slow password-slow\r\n/msg bob one byte at a time\n".bytes() {
        slow.send(&[byte]);
    }
    slow.expect("OK register user=slow");
    slow.expect("OK msg id=<ID> time=<TIME> to=bob peer=online");
    bystanders.bob.expect("* msg <ID> <TIME> bob slow :one byte at a time");
    bystanders.talk();
}

/// Sends `total` bytes without an ending and tells how many the daemon took.
fn flood(client: &mut Client, total: usize) -> usize {
    let piece = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while sent < total {
        if client.try_send(&piece).is_err() {
            break;
        }
        sent += piece.len();
    }
    sent
}

#[test]
fn a_huge_line_after_login() {
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let mut mallory = Client::connect(daemon.address());
    mallory.ask("/register mallory password-mallory", "OK register user=mallory");
    let before = daemon.memory_kib("VmRSS");
    mallory.send(b"/msg bob ");
    flood(&mut mallory, 64 << 20);
    mallory.expect("ERR * too-long max=131072");
    bystanders.talk();
    // Told once; the line ends, the connection goes on.
    mallory.send(b"the end\n/ping still here\n");
    mallory.expect("OK ping :still here");
    let gain = daemon.memory_kib("VmHWM").saturating_sub(before);
    assert!(gain < FLOOD_GAIN_KIB, "a line of 64 MiB cost {gain} KiB");
    bystanders.talk();
}

#[test]
fn a_huge_line_before_login() {
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let before = daemon.memory_kib("VmRSS");
    let mut mallory = Client::connect(daemon.address());
    flood(&mut mallory, 64 << 20);
    mallory.expect("ERR * too-long max=4096");
    let (lines, _) = mallory.drain();
    assert!(lines.is_empty(), "{lines:?}");
    let gain = daemon.memory_kib("VmHWM").saturating_sub(before);
    assert!(gain < FLOOD_GAIN_KIB, "a line of 64 MiB cost {gain} KiB");
    bystanders.talk();
}

#[test]
fn many_huge_lines_at_once() {
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let before = daemon.memory_kib("VmRSS");
    let mut floods: Vec<Client> = (0..20)
        .map(|n| {
            let mut client = Client::connect(daemon.address());
            client.ask(&format!("/register flood{n} password-flood"), "OK register user=<WORD>");
            client
        })
        .collect();
    for client in &mut floods {
        flood(client, 1 << 20);
    }
    bystanders.talk();
    for client in &mut floods {
        client.expect("ERR * too-long max=131072");
        client.send(b"\n/ping\n");
        client.expect("OK ping");
    }
    let gain = daemon.memory_kib("VmHWM").saturating_sub(before);
    // An input buffer each would be up to 128 KiB while a line is shorter than the limit.
    assert!(gain < FLOOD_GAIN_KIB + 20 * 512, "20 lines of 1 MiB cost {gain} KiB");
}

#[test]
fn lines_that_are_none() {
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let mut mallory = Client::connect(daemon.address());
    let lines: [(&[u8], &str); 12] = [
        (b"\0\n", "ERR * syntax"),
        (b"/ping \0\n", "ERR * syntax"),
        (b"\r\r\n", "ERR * syntax"),
        (b"/ping\rx\n", "ERR * syntax"),
        (b"/ping \xc0\xaf\n", "ERR * syntax"),
        (b"/ping \xf5\x80\x80\x80\n", "ERR * syntax"),
        (b"/register \"alice\n", "ERR register syntax"),
        (b"/login a\"b\" password-x\n", "ERR login <WORD> ..."),
        (b"/frobnicate\n", "ERR frobnicate unknown-command"),
        (b"/ping@\xe2\x98\x83 x\n", "ERR ping syntax"),
        (b"/\xe2\x98\x83\n", "ERR * unknown-command"),
        (b"/whoami a b c d e f g h\n", "ERR whoami syntax"),
    ];
    for (line, answer) in lines {
        mallory.send(line);
        match answer.ends_with("...") {
            true => mallory.expect(&format!("{answer} :<TEXT>")),
            false => mallory.expect(answer),
        };
    }
    // As many arguments as fit into a line.
    let mut many = "/register".to_owned();
    many.push_str(&" a".repeat(2000));
    mallory.ask(&many, "ERR register syntax");
    // Noise inside TLS, in lines: each answered with a complaint, none with a crash.
    mallory.ask("/register mallory password-mallory", "OK register user=mallory");
    for seed in 1..=200 {
        let mut bytes = noise(seed, 60);
        bytes.retain(|&b| b != b'\n');
        mallory.send(b"/");
        mallory.send(&bytes);
        mallory.send(b"\n");
        mallory.expect("ERR <REST>");
    }
    bystanders.talk();
}

#[test]
fn an_http_request_inside_tls() {
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    for request in [
        "GET / HTTP/1.1\r\nHost: chat.example\r\n\r\n",
        "POST /register HTTP/1.0\r\nContent-Length: 3\r\n\r\n/x\n",
        "HEAD /x HTTP/1.1\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\n\r\n",
    ] {
        let mut browser = Client::connect(daemon.address());
        browser.send(request.as_bytes());
        let (lines, ended) = browser.drain();
        assert!(lines.is_empty(), "{request:?} was answered {lines:?}");
        assert_eq!(ended, Ended::Cleanly, "{request:?}");
    }
    // Only as the first bytes: later it is bare text.
    let mut alice = Client::connect(daemon.address());
    alice.ask("/ping", "OK ping");
    alice.ask("GET / HTTP/1.1", "ERR msg not-logged-in");
    bystanders.talk();
}

#[test]
fn a_hundred_thousand_commands_in_one_write() {
    const COMMANDS: usize = 100_000;
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let mut mallory = Client::connect(daemon.address());
    mallory.ask("/register mallory password-mallory", "OK register user=mallory");
    let before = daemon.memory_kib("VmRSS");
    let pings: String = (0..COMMANDS).map(|n| format!("/ping {n}\n")).collect();
    let talk = std::thread::spawn(move || {
        bystanders.talk();
        bystanders
    });
    mallory.send(pings.as_bytes());
    for n in 0..COMMANDS {
        assert_eq!(mallory.line(), Ok(format!("OK ping :{n}")));
    }
    talk.join().unwrap().talk();
    let gain = daemon.memory_kib("VmHWM").saturating_sub(before);
    assert!(gain < FLOOD_GAIN_KIB, "pipelined commands cost {gain} KiB");
}

#[test]
fn commands_whose_answers_nobody_reads() {
    const COMMANDS: usize = 400;
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let mut mallory = Client::connect(daemon.address());
    mallory.ask("/register mallory password-mallory", "OK register user=mallory");
    let before = daemon.memory_kib("VmRSS");
    mallory.pause();
    let gate = mallory.gate();
    // 128 KiB of answer for each line; the daemon must stop reading instead of keeping them all.
    let line = format!("/ping {}\n", "x".repeat(131_000));
    let (tell, told) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        for _ in 0..COMMANDS {
            mallory.send(line.as_bytes());
            let _ = tell.send(());
        }
        mallory
    });
    // Until the writer is stuck, or would be done if the daemon took everything; nothing hangs on how long
    // this waits.
    while told.recv_timeout(std::time::Duration::from_millis(500)).is_ok() {}
    for _ in 0..20 {
        bystanders.talk();
    }
    let gain = daemon.memory_kib("VmHWM").saturating_sub(before);
    assert!(gain < FLOOD_GAIN_KIB, "unread answers cost {gain} KiB");
    // Reading again lets everything through: nothing was lost.
    gate.set(false);
    let mut mallory = writer.join().unwrap();
    for _ in 0..COMMANDS {
        mallory.expect("OK ping :xxx<TEXT>");
    }
    bystanders.talk();
}

#[test]
fn a_reader_that_never_reads_then_reads_everything() {
    const MESSAGES: usize = 240;
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let mut slow = Client::connect(daemon.address());
    slow.ask("/register slow password-slow", "OK register user=slow");
    slow.ask("/join #flood", "OK join room=#flood members=1 e2e=no last=0");
    let mut loud = Client::connect(daemon.address());
    loud.ask("/register loud password-loud", "OK register user=loud");
    loud.ask("/join #flood", "OK join room=#flood members=2 e2e=no last=0");
    slow.expect("* join #flood loud");
    slow.pause();
    // Far more than the outbound limit and what the kernels buffer.
    let filler = "y".repeat(60_000);
    let mut ids = Vec::new();
    for n in 0..MESSAGES {
        let to = if n % 4 == 0 { "slow" } else { "#flood" };
        let got = loud.ask(&format!("/msg {to} {n} {filler}"), "OK msg id=<ID:id> time=<TIME> to=<WORD> ...");
        ids.push((to, got["id"].clone()));
        if n % 100 == 0 {
            bystanders.talk();
        }
    }
    slow.resume();
    // Everything comes, each once; within a conversation in order.
    let mut received: Vec<(String, String, usize)> = Vec::new();
    let mut live = 0;
    while received.len() < MESSAGES + live {
        let line = slow.line().unwrap();
        let words: Vec<&str> = line.splitn(8, ' ').collect();
        assert_eq!(words[..2], ["*", "msg"], "{}", &line[..line.len().min(100)]);
        let number = words.iter().find_map(|w| w.strip_prefix(':')).unwrap().parse().unwrap();
        received.push((words[4].to_owned(), words[2].to_owned(), number));
        // Live messages come while it is catching up.
        if received.len() == MESSAGES / 2 {
            for n in MESSAGES..MESSAGES + 20 {
                let got = loud.ask(&format!("/msg #flood {n} live"), "OK msg id=<ID:id> time=<TIME> to=#flood");
                ids.push(("#flood", got["id"].clone()));
            }
            live = 20;
        }
    }
    for conversation in ["slow", "#flood"] {
        let got: Vec<&String> = received.iter().filter(|r| r.0 == conversation).map(|r| &r.1).collect();
        let expected: Vec<&String> = ids.iter().filter(|r| r.0 == conversation).map(|r| &r.1).collect();
        assert_eq!(got, expected, "{conversation}");
    }
    slow.ask("/ping done", "OK ping :done");
    bystanders.talk();
}

/// Events that are not stored are dropped for whoever does not read them, instead of being kept.
#[test]
fn events_for_a_reader_that_never_reads_cost_nothing() {
    const EVENTS: u32 = 1000;
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let mut slow = Client::connect(daemon.address());
    slow.ask("/register slow password-slow", "OK register user=slow");
    let mut loud = Client::connect(daemon.address());
    loud.ask("/register loud password-loud", "OK register user=loud");
    slow.ask("/watch loud", "OK watch<REST>");
    // As long a text as it takes, which the first refusal would name.
    let most = [100_000, 10_000, 1000, 250].into_iter().find(|length| {
        loud.say(&format!("/away {}", "a".repeat(*length)));
        loud.line().unwrap().starts_with("OK away")
    });
    let filler = "a".repeat(most.unwrap());
    let before = daemon.memory_kib("VmRSS");
    slow.pause();
    for n in 0..EVENTS {
        // Pieces of one kind fill what is cheap to fill.
        loud.say(&format!("/away {n} {filler}"));
        loud.say("/back");
        loud.until("OK away<REST>");
        loud.until("OK back<REST>");
    }
    bystanders.talk();
    let gain = daemon.memory_kib("VmHWM").saturating_sub(before);
    assert!(gain < FLOOD_GAIN_KIB / 2, "events for a slow reader cost {gain} KiB");
    slow.resume();
    slow.say("/ping done");
    slow.until("OK ping :done");
}

#[test]
fn a_reader_that_stalls_for_good_is_let_go_and_loses_nothing() {
    const MESSAGES: usize = 300;
    let home = Home::new("[limits]\nstalled_seconds = 1\n");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let mut slow = Client::connect(daemon.address());
    slow.ask("/register slow password-slow", "OK register user=slow");
    let mut loud = Client::connect(daemon.address());
    loud.ask("/register loud password-loud", "OK register user=loud");
    loud.ask("/watch slow", "OK watch<REST>");
    slow.pause();
    let filler = "z".repeat(60_000);
    let mut offline = false;
    for n in 0..MESSAGES {
        loud.say(&format!("/msg slow {n} {filler}"));
        let lines = loud.until("OK msg id=<ID> time=<TIME> to=slow peer=<WORD>");
        offline |= lines.iter().any(|line| line == "* offline slow");
    }
    if !offline {
        loud.expect("* offline slow");
    }
    slow.resume();
    let (lines, _) = slow.drain();
    let begun = lines.iter().filter(|line| line.starts_with("* msg ")).count();
    assert!(begun < MESSAGES, "all of it fitted into the buffers");
    // What it did not acknowledge by a later line is unread, all of it.
    let mut again = Client::connect(daemon.address());
    again.ask("/login slow password-slow", &format!("OK login user=slow unread={MESSAGES}"));
    bystanders.talk();
}

#[test]
fn clients_killed_in_the_middle_of_a_line() {
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    for n in 0..20 {
        let mut client = Client::connect(daemon.address());
        client.ask(&format!("/register user{n} password-user"), "OK register user=<WORD>");
        client.send(b"/msg bob this line never en");
        if n % 2 == 0 {
            client.kill();
        }
        drop(client);
    }
    bystanders.talk();
    // And killed with a command in flight: done or not done, never half.
    for n in 20..40 {
        let mut client = Client::connect(daemon.address());
        client.send(format!("/register user{n} password-user\n/join #room{n}\n").as_bytes());
        client.kill();
    }
    bystanders.talk();
}

#[test]
fn a_bare_fin_still_gets_every_answer() {
    let home = Home::new("");
    let daemon = home.start();
    let mut bystanders = Bystanders::new(&daemon);
    let mut alice = Client::connect(daemon.address());
    let mut lines = String::from("/register carol password-carol\n");
    for n in 0..200 {
        lines.push_str(&format!("/msg bob {n}\n"));
    }
    lines.push_str("/msg bob this one has no end");
    alice.send(lines.as_bytes());
    alice.fin();
    alice.expect("OK register user=carol");
    for _ in 0..200 {
        alice.expect("OK msg id=<ID> time=<TIME> to=bob peer=online");
    }
    alice.expect_closed();
    for n in 0..200 {
        bystanders.bob.expect(&format!("* msg <ID> <TIME> bob carol :{n}"));
    }
    bystanders.talk();
}

#[test]
fn a_handshake_has_its_deadline() {
    let home = Home::new("[limits]\nhandshake_seconds = 1\n");
    let daemon = home.start();
    let mut silent = TcpStream::connect(daemon.address()).unwrap();
    assert_alert_at_most(&read_to_end(&mut silent));
}

#[test]
fn a_login_has_its_deadline() {
    let home = Home::new("[limits]\nlogin_seconds = 1\n");
    let daemon = home.start();
    // Saying something puts nothing off.
    let mut stranger = Client::connect(daemon.address());
    stranger.ask("/ping", "OK ping");
    stranger.expect("* bye idle<REST>");
    stranger.expect_closed();
}

#[test]
fn a_line_that_was_begun_has_its_deadline() {
    let home = Home::new("[limits]\nline_seconds = 1\n");
    let daemon = home.start();
    // Somebody logged in who says nothing has none: `idle_seconds` is 0.
    let mut quiet = Client::connect(daemon.address());
    quiet.ask("/register quiet password-quiet", "OK register user=quiet");
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice password-alice", "OK register user=alice");
    alice.send(b"/msg bob and then");
    alice.expect("* bye idle<REST>");
    alice.expect_closed();
    // Single bytes do not put it off.
    let mut drip = Client::connect(daemon.address());
    drip.ask("/register drip password-drip", "OK register user=drip");
    wait_until("the drip was ended", || {
        let _ = drip.try_send(b"x");
        !is_online(&mut quiet, "drip")
    });
    quiet.ask("/ping", "OK ping");
}

fn is_online(client: &mut Client, name: &str) -> bool {
    client.say(&format!("/who {name}"));
    let lines = client.until("OK who<REST>");
    lines.iter().any(|line| line.starts_with(&format!("- user {name} online")))
}

#[test]
fn an_idle_session_is_ended_where_the_operator_wants_it() {
    let home = Home::new("[limits]\nidle_seconds = 1\n");
    let daemon = home.start();
    let mut alice = Client::connect(daemon.address());
    alice.ask("/register alice password-alice", "OK register user=alice");
    alice.expect("* bye idle<REST>");
    alice.expect_closed();
}

#[test]
fn connections_of_one_address_are_counted() {
    let home = Home::new("[limits]\nconnections_per_address = 3\n");
    let daemon = home.start();
    let mut held: Vec<Client> = (0..3).map(|_| Client::connect(daemon.address())).collect();
    for _ in 0..5 {
        let refused = Client::try_raw(daemon.address(), &Options::default());
        // Refused before or after the handshake, but not served.
        if let Ok(mut refused) = refused {
            let (lines, _) = refused.drain();
            assert!(lines.iter().all(|line| line.starts_with("* bye ")), "{lines:?}");
        }
    }
    for client in &mut held {
        client.ask("/ping", "OK ping");
    }
    // A place that becomes free is free.
    let mut last = held.pop().unwrap();
    last.ask("/quit", "OK quit");
    last.expect_closed();
    drop(last);
    let mut next = None;
    wait_until("the place is free again", || {
        next = try_greeted(daemon.address());
        next.is_some()
    });
    next.unwrap().ask("/ping", "OK ping");
}

fn try_greeted(address: SocketAddr) -> Option<Client> {
    let mut client = Client::try_raw(address, &Options::default()).ok()?;
    client.line().ok()?.starts_with("* hello ").then_some(client)
}

#[test]
fn the_limit_of_connections_holds_and_lets_go() {
    let home = Home::new("[limits]\nconnections = 5\n");
    let daemon = home.start();
    let mut held: Vec<Client> = (0..5).map(|_| Client::connect(daemon.address())).collect();
    let silent = TcpStream::connect(daemon.address()).unwrap();
    held[0].ask("/ping", "OK ping");
    drop(silent);
    held.pop().unwrap().close();
    let mut next = None;
    wait_until("the place is free again", || {
        next = try_greeted(daemon.address());
        next.is_some()
    });
    next.unwrap().ask("/ping", "OK ping");
}

#[test]
fn running_out_of_descriptors_ends_nothing() {
    let home = Home::new("");
    let mut daemon = home.start_under("ulimit -n 64");
    let mut bystanders = Bystanders::new(&daemon);
    // More than there are descriptors for; the kernel keeps the rest waiting.
    let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(daemon.address()).unwrap()).collect();
    for _ in 0..5 {
        bystanders.talk();
    }
    drop(crowd);
    let mut carol = Client::connect(daemon.address());
    carol.ask("/ping", "OK ping");
    bystanders.talk();
    assert!(daemon.is_alive());
}

#[test]
fn old_and_new_tls_and_alpn() {
    let home = Home::new("");
    let daemon = home.start();
    let mut old = Client::raw(daemon.address(), &Options { tls12: true, ..Options::default() });
    old.expect("* hello downstream/1 ... :<TEXT>");
    assert_eq!(old.tls().protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    old.ask("/register old password-old", "OK register user=old");
    let mut new = Client::connect(daemon.address());
    assert_eq!(new.tls().protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(new.tls().alpn_protocol(), None);
    let alpn = Some(b"downstream/1".to_vec());
    let mut named = Client::raw(daemon.address(), &Options { alpn, ..Options::default() });
    named.expect("* hello downstream/1 ... :<TEXT>");
    assert_eq!(named.tls().alpn_protocol(), Some(b"downstream/1".as_slice()));
    new.ask("/ping", "OK ping");
    // Another protocol is refused in the handshake (RFC 7301, section 3.2), or not agreed on.
    let alpn = Some(b"h2".to_vec());
    if let Ok(client) = Client::try_raw(daemon.address(), &Options { alpn, ..Options::default() }) {
        assert_eq!(client.tls().alpn_protocol(), None);
    }
}

#[test]
fn handshakes_are_resumed_and_post_quantum() {
    let home = Home::new("");
    let daemon = home.start();
    let identity = Identity::generate();
    let config = Arc::new(client::config(&Options { identity: Some(identity), ..Options::default() }));
    let mut first = Client::with_config(daemon.address(), Arc::clone(&config)).unwrap();
    first.expect("* hello downstream/1 ... :<TEXT>");
    first.ask("/register alice password-alice", "OK register user=alice");
    first.ask("/cert add", "OK cert<REST>");
    assert_eq!(first.tls().handshake_kind(), Some(rustls::HandshakeKind::Full));
    let group = first.tls().negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    // A resumed handshake is still that of whoever held the key in the full one.
    let mut second = Client::with_config(daemon.address(), config).unwrap();
    second.expect("* hello downstream/1 ... :<TEXT>");
    assert_eq!(second.tls().handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    second.ask("/login alice", "OK login user=alice unread=0");
}

/// Raises this process's own limit of open files.
fn allow_files(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if current < wanted {
        let maximum = limit.maximum.unwrap_or(u64::MAX);
        assert!(maximum >= wanted, "this test needs {wanted} open files, `ulimit -Hn` allows {maximum}");
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).unwrap();
    }
}
