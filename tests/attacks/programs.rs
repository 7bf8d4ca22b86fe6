//! Programs that build on `dsc`: a bot in Python on `pipe --json`, and `tail --json` into jq.

use std::process::{Command, Stdio};

use crate::evil::dsc::{BINARY, Running};
use crate::evil::{Dsc, Stage, Verdict};
use crate::support::client::wait_until;

/// Alice and a bot in an end-to-end room.
fn room_with_bot(s: &Stage) -> (Dsc, Dsc) {
    let (alice, bot) = (s.dsc("alice"), s.dsc("bot"));
    alice.run(&["create", "#ops"]).ok();
    alice.run(&["invite", "#ops", "bot"]).ok();
    bot.run(&["join", "#ops"]).ok();
    (alice, bot)
}

#[test]
fn a_bot_in_python_answers_in_a_room() {
    let s = Stage::new();
    let (alice, bot) = room_with_bot(&s);
    let mut command = bot.command_of("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bot/bot.py")).arg("#ops").arg(BINARY);
    let mut bot = Running::start(command);
    bot.wait("ready", |event| event["event"] == "notice" && event["kind"] == "ready");
    let mut tail = alice.tail();
    alice.run(&["send", "#ops", "!echo good morning"]).ok();
    tail.wait_text("good morning");
    // What the server says in the clear is not obeyed.
    s.evil.script(|caught| {
        if caught.user == "bot" && caught.is_down("* msg ") {
            return Verdict::Instead(vec![caught.with_body("!echo forged")]);
        }
        Verdict::Pass
    });
    alice.run(&["send", "#ops", "not for the bot"]).ok();
    assert_eq!(bot.wait_unreadable(), "plain");
    s.evil.honest();
    alice.run(&["send", "#ops", "!sum 1 2 39"]).ok();
    let shown = tail.wait_text("42");
    assert_eq!((shown["sender"].as_str(), shown["encrypted"].as_bool()), (Some("bot"), Some(true)));
    alice.run(&["send", "#ops", "!quit"]).ok();
    bot.until_end().ok();
    assert!(!tail.stop().texts().contains(&"forged".to_owned()));
}

#[test]
fn tail_goes_into_jq() {
    let s = Stage::new();
    let (alice, bot) = room_with_bot(&s);
    let mut tail = alice.command();
    tail.args(["--json", "tail"]).stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null());
    let mut tail = tail.spawn().unwrap();
    let mut jq = Command::new("jq");
    jq.args(["--unbuffered", "-c"]);
    jq.arg("select(.event == \"message\") | {event, from: .sender, in: .target, say: .content.text}");
    let mut jq = Running::start_on(jq, tail.stdout.take().unwrap().into());
    for i in 0..3 {
        bot.run(&["send", "#ops", &format!("line {i}")]).ok();
        let shown = jq.wait("a line of jq", |line| line["say"] == format!("line {i}"));
        assert_eq!((&shown["from"], &shown["in"]), (&"bot".into(), &"#ops".into()));
    }
    // jq goes away: tail ends by itself, and not with a panic.
    drop(jq);
    bot.run(&["send", "#ops", "nobody reads this"]).ok();
    bot.run(&["send", "#ops", "nor this"]).ok();
    let mut ended = None;
    wait_until("the end of tail", || {
        ended = tail.try_wait().unwrap();
        ended.is_some()
    });
    assert_ne!(ended.unwrap().code(), Some(101), "a panic");
}
