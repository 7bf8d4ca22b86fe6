use std::path::Path;

use super::*;
use crate::store::FileRef;
use downstream::e2e::name::MsgId;
use downstream::protocol::{FileId, Target};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("dsc").chain(line.split_whitespace()))
}

fn command_of(line: &str) -> Command {
    parse(line).unwrap_or_else(|error| panic!("{line}: {error}")).command
}

fn refused(line: &str) -> String {
    let error = super::parse(std::iter::once("dsc").chain(line.split_whitespace()).map(OsString::from));
    let error = error.expect_err("a usage error");
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string()
}

#[test]
fn clap_finds_no_fault_in_the_definitions() {
    command().debug_assert();
}

#[test]
fn every_command_is_listed_once_and_says_what_it_does() {
    let command = command();
    let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
    let defined: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).chain(["help"]).collect();
    assert_eq!(listed, defined, "the definitions stand in the order of the listing");
    listed.dedup();
    assert_eq!(listed.len(), defined.len());
    for sub in command.get_subcommands() {
        let about = sub.get_about().unwrap_or_else(|| panic!("{}", sub.get_name())).to_string();
        assert!(!about.ends_with('.') && about.len() <= 76, "{}: {about}", sub.get_name());
        for argument in sub.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", sub.get_name(), argument.get_id());
        }
    }
}

#[test]
fn global_options_stand_before_and_after_a_command() {
    let options = "--server h --user Alice --home d --json --quiet --color never --ca f --password-file p --yes";
    for line in [format!("{options} whoami"), format!("whoami {options}"), format!("{options} --pass-fd 3 keys status")]
    {
        let Cli { options, .. } = parse(&line).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(options.server.map(|server| server.to_string()).as_deref(), Some("h:7667"), "{line}");
        assert_eq!(options.account.map(|user| user.to_string()).as_deref(), Some("alice"));
        assert!(options.json && options.quiet && options.yes);
        assert_eq!(options.color, Some(ColorChoice::Never));
    }
    assert!(refused("whoami --pass-fd 3 --passphrase-file f").contains("cannot be used with"));
    // A person in a command is not the account.
    let cli = parse("--user alice verify bob").unwrap();
    assert_eq!(cli.options.account.unwrap().as_str(), "alice");
    assert!(matches!(cli.command, Command::Verify(Verify { user, .. }) if user.as_str() == "bob"));
}

#[test]
fn servers_and_pins_are_read_here() {
    assert!(refused("whoami --server a:b:c").contains("names no server: write HOST, HOST:PORT or [IPV6]:PORT"));
    let hex = "0123456789abcdef".repeat(4);
    let pin = parse(&format!("whoami --pin sha256:{hex}")).unwrap().options.pin.unwrap();
    assert_eq!(pin.to_string(), format!("sha256:{hex}"));
    assert!(refused("whoami --pin sha256:0123").contains("64 hexadecimal digits"));
}

#[test]
fn sending() {
    let Command::Send(send) = command_of("send Bob,#Ops,bob hello there --plain") else { panic!() };
    assert_eq!(send.targets.0.iter().map(Target::as_str).collect::<Vec<_>>(), ["bob", "#ops"]);
    assert_eq!((joined(&send.text).as_deref(), send.plain), (Some("hello there"), true));
    let Command::Send(send) = command_of("send bob -- --not-an-option") else { panic!() };
    assert_eq!(joined(&send.text).as_deref(), Some("--not-an-option"));
    let Command::Send(send) = command_of("send bob") else { panic!() };
    assert_eq!(joined(&send.text), None);
    assert!(refused("send bob,").contains("a name is 1 to 32"));
    assert!(refused("send a,#").contains("1 to 48"));
    let many: Vec<String> = (0..101).map(|i| format!("u{i}")).collect();
    assert!(refused(&format!("send {}", many.join(","))).contains("at most 100"));
}

#[test]
fn files_are_named_by_message_or_number() {
    let Command::GetFile(get) = command_of("get-file bob/17 #Ops/3 42 -o -") else { panic!() };
    let message = |target, id| FileRef::Message(Target::parse(target).unwrap(), id);
    assert_eq!(get.files, [message("bob", 17), message("#ops", 3), FileRef::Number(FileId(42))]);
    assert_eq!(get.output.as_deref(), Some(Path::new("-")));
    for bad in ["0", "x", "bob/", "bob/0", "bob/+1", "bob/017", "-1/2", "18446744073709551616"] {
        let line = format!("get-file -- {bad}");
        assert!(refused(&line).contains("a file is named by its message") || bad == "-1/2", "{bad}");
    }
    assert!(refused("get-file a/b/1").contains("a name is"));
    assert!(refused("get-file").contains("<FILE>"));
    let Command::Files { target: None } = command_of("files") else { panic!() };
}

#[test]
fn saving_has_a_bound() {
    let most = |line: &str| match command_of(line) {
        Command::Tail(tail) => (tail.save.is_some(), tail.save_max),
        _ => panic!("{line}"),
    };
    assert_eq!(most("tail bob --save d"), (true, 1 << 30));
    assert_eq!(most("tail --save d --save-max 500MB"), (true, 500_000_000));
    assert_eq!(most("tail --save d --save-max 4096"), (true, 4096));
    assert_eq!(most("tail"), (false, 1 << 30));
    assert!(refused("tail --save-max 1GB").contains("--save"));
    assert!(refused("tail --save d --save-max much").contains("a size is as in 500MB"));
}

#[test]
fn a_room_may_lack_its_sign_and_a_target_may_not() {
    let Command::Join { room } = command_of("join Ops") else { panic!() };
    assert_eq!(room.room.0.as_str(), "#ops");
    let Command::Join { room } = command_of("join #ops") else { panic!() };
    assert_eq!(room.room.0.as_str(), "#ops");
    let Command::Who { target } = command_of("who ops") else { panic!() };
    assert!(matches!(target, Target::User(_)));
    for line in ["join", "send", "kick"] {
        assert!(refused(line).contains("write the name of a room in quotes, '#room'"), "{line}");
    }
    assert!(!refused("verify").contains("in quotes"));
    assert!(refused("join ##").contains("a name is"));
}

#[test]
fn messages_are_named_in_two_ways() {
    let id = "0123456789abcdef".repeat(2);
    let Command::React { message, text } = command_of(&format!("react #ops {id} +1")) else { panic!() };
    assert_eq!(
        message.message.clone(),
        MessageRef::MsgId(MsgId(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"))
    );
    assert_eq!(joined(&text).as_deref(), Some("+1"));
    let Command::Delete { message } = command_of("delete bob 17") else { panic!() };
    assert_eq!(message.message, MessageRef::Id(17));
    for bad in ["0", "+1", "x", "18446744073709551616", &id[1..]] {
        assert!(refused(&format!("delete bob {bad}")).contains("32 hexadecimal digits"), "{bad}");
    }
}

#[test]
fn pages_have_one_direction_and_need_a_conversation() {
    let Command::Fetch(fetch) = command_of("fetch #ops --limit 5 --before 9") else { panic!() };
    assert_eq!((fetch.limit, fetch.before, fetch.after), (Some(5), Some(9), None));
    assert!(matches!(command_of("fetch"), Command::Fetch(Fetch { target: None, .. })));
    assert!(refused("fetch --limit 5").contains("<TARGET>"));
    assert!(refused("fetch #ops --before 9 --after 3").contains("cannot be used with"));
    assert!(refused("fetch #ops --limit 1001").contains("1..=1000"));
    assert!(refused("fetch #ops --limit 0").contains("1..=1000"));
}

#[test]
fn seal_has_one_receiver() {
    assert!(matches!(command_of("seal --to bob --raw"), Command::Seal(Seal { raw: true, room: None, .. })));
    assert!(matches!(command_of("seal --room ops"), Command::Seal(Seal { to: None, room: Some(_), .. })));
    assert!(refused("seal").contains("--to <USER>|--room <ROOM>"));
    assert!(refused("seal --to bob --room ops").contains("cannot be used with"));
}

#[test]
fn what_belongs_together() {
    assert!(refused("create r --open --closed").contains("cannot be used with"));
    assert!(refused("trust bob --was-verified").contains("--accept"));
    assert!(refused("trust bob --accept 123").contains("first 10 digits"));
    let Command::Trust(trust) =
        Cli::try_parse_from(["dsc", "trust", "bob", "--accept", "12345 67890", "--was-verified"]).unwrap().command
    else {
        panic!()
    };
    assert_eq!(trust.accept.as_deref(), Some("1234567890"));
    assert!(refused("devices --name 3f2a").contains("2 values"));
    assert!(refused("devices bob --drop 3f2a").contains("cannot be used with"));
    assert!(refused("devices --name 3f2a laptop --drop 3f2a").contains("cannot be used with"));
    assert!(refused("keys").contains("Usage: dsc keys"));
    assert!(refused("").contains("Usage: dsc"));
}

#[test]
fn what_goes_into_a_line_is_one_line() {
    for arguments in [
        &["dsc", "topic", "ops", "a\nb"][..],
        &["dsc", "leave", "ops", "a\rb"],
        &["dsc", "users", "a\n/quit"],
        &["dsc", "register", "--invite", "a\nb"],
        &["dsc", "create", "ops", "--topic", "a\nb"],
    ] {
        let error = Cli::try_parse_from(arguments).expect_err("a usage error").to_string();
        assert!(error.contains("one line"), "{error}");
    }
}

#[test]
fn the_colour_of_errors_is_what_was_asked_for() {
    let asked = |line: &str| asked_colour(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
    assert_eq!(asked("dsc tail"), clap::ColorChoice::Auto);
    assert_eq!(asked("dsc --color never tail --color=always"), clap::ColorChoice::Always);
    assert_eq!(asked("dsc --color never send bob -- --color=always"), clap::ColorChoice::Never);
}

#[test]
fn help_and_version_are_no_errors() {
    for line in ["--help", "--version", "help", "help send", "keys publish --help"] {
        let arguments = std::iter::once("dsc").chain(line.split_whitespace()).map(OsString::from);
        assert_eq!(super::parse(arguments).expect_err("a text").exit_code(), 0, "{line}");
    }
}
