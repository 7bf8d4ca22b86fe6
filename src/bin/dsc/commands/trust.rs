//! Keys and whom they stand for: `init`, `keys`, `number`, `verify`, `trust`, `devices`, `link`, `export`,
//! `import`.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use downstream::e2e::link::Code;
use downstream::e2e::name::User;
use downstream::protocol::UserName;

use super::{offline, online};
use crate::app::{
    self, Client, LOOK_EVERY, Number, looks_like_words, number_of, publish_lines, seed_from_words, seed_words,
};
use crate::cli;
use crate::context::Context;
use crate::error::Failure;
use crate::event::{Event, Row};
use crate::net::Wake;
use crate::store::Tx;

/// The most that `import` reads: some thousand rows of keys or rosters.
const IMPORT_MAX: u64 = 64 * 1024 * 1024;

/// `dsc init`: keys without a server.
pub(crate) fn init(ctx: &mut Context, new: &cli::NewStore) -> Result<(), Failure> {
    let (out, user) = (ctx.out, ctx.user()?);
    let store = ctx.store_or_new(new.no_passphrase)?;
    let name =
        User::parse(user.as_str()).map_err(|_| Failure::usage(format!("{user} is no name that keys can stand for")))?;
    store.transact(|tx| -> Result<(), Failure> {
        if tx.state().is_some() {
            return Err(Failure::failed("this home has keys already").hint("use another --home to begin anew"));
        }
        let account = app::draw_account()?;
        let keys = app::new_keys(&account, &name, None)?;
        let mut profile = tx.profile();
        profile.user = Some(user.clone());
        tx.set_profile(profile);
        Ok(tx.begin(keys.state, Some(account))?)
    })?;
    out.show(&Event::Notice {
        kind: "keys-made".to_owned(),
        subject: Some(user.to_string()),
        text: format!("keys for {user} are made; `dsc keys publish --print` prints the lines that give their public half to a server"),
    })
}

/// `dsc keys`
pub(crate) fn keys(ctx: &mut Context, command: &cli::Keys) -> Result<(), Failure> {
    match command {
        cli::Keys::Publish { print: true } => {
            let records = offline(ctx, |client| client.publishable())?;
            publish_lines(&records).iter().try_for_each(|line| ctx.out.print(&format!("{line}\n")))
        }
        cli::Keys::Publish { print: false } => online(ctx, |client| {
            let records = client.publishable()?;
            client.publish(&records).map(drop)
        }),
        cli::Keys::Refill => online(ctx, |_| Ok(())),
        cli::Keys::Status => online(ctx, |client| {
            let (rows, _) = client.command("/keys status")?;
            for row in &rows {
                let words: Vec<&str> = row.split(' ').collect();
                let number = |key: &str| {
                    words
                        .iter()
                        .find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok())
                        .unwrap_or(0)
                };
                let Some(device) = words.get(1) else { continue };
                (client.show)(&Event::Row(Row::Keys {
                    device: (*device).to_owned(),
                    opk: number("opk"),
                    pqk: number("pqk"),
                }))?;
            }
            Ok(())
        }),
    }
}

/// `dsc number`
pub(crate) fn number(ctx: &mut Context, user: Option<&UserName>, qr: bool) -> Result<(), Failure> {
    let number = match user {
        None => with_store(ctx, app::own_number)?,
        Some(user) => number_with(ctx, user)?,
    };
    show_number(ctx, &number, qr)
}

fn number_with(ctx: &mut Context, user: &UserName) -> Result<Number, Failure> {
    let subject = sealed(user)?;
    let known = with_store(ctx, |tx| Ok(tx.state().is_some_and(|state| state.contacts.contains_key(&subject))))?;
    if known { with_store(ctx, |tx| number_of(tx, &subject)) } else { online(ctx, |client| client.number(user)) }
}

fn show_number(ctx: &mut Context, number: &Number, qr: bool) -> Result<(), Failure> {
    ctx.out.show(&Event::Row(Row::Number {
        user: number.user.clone(),
        number: number.grouped.clone(),
        verified: number.verified,
    }))?;
    if qr { ctx.out.qr(&number.grouped.replace(' ', "")) } else { Ok(()) }
}

/// `dsc verify`
pub(crate) fn verify(ctx: &mut Context, user: &UserName, qr: bool) -> Result<(), Failure> {
    let compared = number_with(ctx, user)?;
    show_number(ctx, &compared, qr)?;
    ctx.prompt.confirm(&format!("Is this the number that {user} sees?")).map_err(|failure| {
        failure.hint("if the numbers differ, somebody stands between you: do not write to them here")
    })?;
    offline(ctx, |client| client.verify(user, &compared))
}

/// `dsc trust`
pub(crate) fn trust(ctx: &mut Context, trust: &cli::Trust) -> Result<(), Failure> {
    let subject = sealed(&trust.user)?;
    online(ctx, |client| client.trust(&subject, trust.accept.as_deref(), trust.was_verified))
}

/// `dsc devices`
pub(crate) fn devices(ctx: &mut Context, devices: &cli::Devices) -> Result<(), Failure> {
    let own = with_store(ctx, |tx| app::own_name(tx))?;
    let user = devices.user.clone().unwrap_or(own);
    if let Some([device, name]) = devices.name.as_deref() {
        return offline(ctx, |client| {
            client.name_device(&user, device, Some(name).filter(|name| !name.is_empty()).map(String::as_str))
        });
    }
    online(ctx, |client| {
        if let Some(device) = &devices.drop {
            client.drop_device(device)?;
        }
        let rows = client.devices(&user)?;
        rows.iter().try_for_each(|row| (client.show)(row))
    })
}

/// `dsc link`, on the new device.
pub(crate) fn link(ctx: &mut Context) -> Result<(), Failure> {
    let user = with_store(ctx, |tx| app::own_name(tx))?;
    let mut connection = ctx.connect()?;
    let out = ctx.out;
    let store = ctx.store()?;
    let mut show = |event: &Event| out.show(event);
    let (waiting, code) = {
        let mut client = Client { store, server: &mut connection, show: &mut show };
        let begun = client.link_begin(&user)?;
        (client.show)(&Event::Row(Row::LinkCode { code: begun.1.clone() }))?;
        begun
    };
    drop(code);
    loop {
        let linked = Client { store, server: &mut connection, show: &mut show }.link_look(&waiting)?;
        if linked {
            let mut client = Client { store, server: &mut connection, show: &mut show };
            client.upkeep()?;
            (client.show)(&Event::Notice {
                kind: "linked".to_owned(),
                subject: Some(user.to_string()),
                text: format!("this device belongs to {user} now"),
            })?;
            connection.quit();
            return Ok(());
        }
        let next = Instant::now() + Duration::from_secs(LOOK_EVERY);
        // Whatever comes may be the answer; `link_look` finds out.
        match connection.next_event(None, Some(next))? {
            Wake::Event(_) | Wake::Input | Wake::Deadline => {}
        }
    }
}

/// `dsc link --approve`
pub(crate) fn approve(ctx: &mut Context, code: &str) -> Result<(), Failure> {
    let code = Code::parse(code).map_err(|_| {
        Failure::usage("that is no code of `dsc link`").hint("52 letters and digits, as the new device shows them")
    })?;
    let prompt = ctx.prompt.clone();
    online(ctx, |client| {
        let device = client
            .link_approve(&code, &|device| prompt.confirm(&format!("Link the device {device} to your account?")))?;
        (client.show)(&Event::Notice {
            kind: "linked".to_owned(),
            subject: Some(device.clone()),
            text: format!("the device {device} is linked"),
        })
    })
}

/// `dsc export`
pub(crate) fn export(ctx: &mut Context, file: Option<&Path>) -> Result<(), Failure> {
    let words: Zeroizing<String> = with_store(ctx, |tx| {
        let account = tx.account_key().ok_or_else(|| {
            Failure::failed("this device does not hold the account's key")
                .hint("only the first device of an account does, or the one that imported its words")
        })?;
        seed_words(account)
    })?;
    match file {
        None => ctx.out.print(&format!("{}\n", *words)),
        Some(path) => {
            let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
            file.write_all(words.as_bytes())
                .and_then(|()| file.write_all(b"\n"))
                .and_then(|()| file.sync_all())
                .map_err(failed)
        }
    }
}

/// `dsc import`
pub(crate) fn import(ctx: &mut Context, file: Option<&Path>) -> Result<(), Failure> {
    let text = read_import(file)?;
    if !looks_like_words(&text) {
        return offline(ctx, |client| {
            let taken = client.import_rows(&text)?;
            (client.show)(&Event::Notice {
                kind: "imported".to_owned(),
                subject: None,
                text: format!("{taken} row(s) taken in"),
            })
        });
    }
    let account = seed_from_words(&text)?;
    let user = with_store(ctx, |tx| app::own_name(tx))?;
    online(ctx, |client| {
        client.begin_account(&user, Some(account))?;
        (client.show)(&Event::Notice {
            kind: "imported".to_owned(),
            subject: Some(user.to_string()),
            text: format!(
                "this device holds the key of {user} now; `dsc devices` lists what else belongs to the account"
            ),
        })
    })
}

fn read_import(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = match file {
        None => std::io::stdin().lock().take(IMPORT_MAX).read_to_string(&mut text),
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(IMPORT_MAX).read_to_string(&mut text)),
    };
    let from = file.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    read.map_err(|error| Failure::failed(format!("{from}: {error}")))?;
    Ok(text)
}

fn sealed(user: &UserName) -> Result<User, Failure> {
    User::parse(user.as_str()).map_err(|_| Failure::usage(format!("{user} is no name that keys can stand for")))
}

fn with_store<T>(ctx: &mut Context, work: impl FnOnce(&mut Tx<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    let store = ctx.store()?;
    store.transact(work)
}
