//! The account on the server and on this machine: `register`, `login`, `logout`, `passwd`, `whoami`,
//! `passphrase`.

use downstream::e2e::keyslot::Cost;
use downstream::protocol::UserName;

use crate::app::Client;
use crate::cli::{NewStore, Register};
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::event::{Event, Row};
use crate::net::{Connection, Endpoint};
use crate::server::{Server as _, command};
use crate::session::{belongs_to, enter};
use crate::store::{Status, Store};

/// `dsc register`
///
/// # Errors
/// [`Failure`].
pub fn register(ctx: &mut Context, register: &Register) -> Result<(), Failure> {
    let (server, user) = whom(ctx)?;
    let invite = register.invite.as_deref();
    // Nobody is asked for passwords for a server that cannot be reached or lets nobody in.
    let probe = ctx.dial(&server)?;
    let registration = probe.hello().registration.clone();
    probe.quit();
    match (registration.as_str(), invite) {
        ("closed", _) => {
            let failure = Failure::new(Exit::Refused, format!("{server} takes no registrations"));
            return Err(failure.hint("have its operator make an account, then `dsc login`"));
        }
        ("invite", None) => {
            let failure = Failure::usage(format!("{server} takes registrations by invitation only"));
            return Err(failure.hint("name the invitation with --invite CODE; its operator makes one"));
        }
        _ => {}
    }
    let password = ctx.prompt.new_password(user.as_str())?;
    ctx.store_or_new(register.store.no_passphrase)?;
    let mut words = vec!["/register", user.as_str(), password.0.as_str()];
    words.extend(invite);
    let line = command(&words);
    let mut connection = ctx.dial(&server)?;
    enter(&mut connection, &line)?.map_err(|refusal| {
        let hint = match refusal.code.as_str() {
            "name-taken" => "choose another name with --user; if the account is yours, `dsc login`",
            "weak-password" => "choose another password",
            "registration-closed" => "an invitation is good for one registration within 7 days",
            _ => return refusal.into(),
        };
        Failure::from(refusal).hint(hint)
    })?;
    settle(ctx, &mut connection, &server, &user)?;
    begin_keys(ctx, &mut connection, &user)?;
    connection.quit();
    done(ctx, &user, format!("{user} is registered on {server}, and this device has its keys"))
}

/// `dsc login`
///
/// # Errors
/// [`Failure`].
pub fn login(ctx: &mut Context, new: &NewStore) -> Result<(), Failure> {
    let (server, user) = whom(ctx)?;
    let password = ctx.prompt.password(user.as_str())?;
    ctx.store_or_new(new.no_passphrase)?;
    let mut connection = ctx.log_in(&server, &user, &password)?;
    settle(ctx, &mut connection, &server, &user)?;
    done(ctx, &user, format!("{user} is logged in on {server}"))?;
    let has_keys = ctx.store()?.transact(|tx| -> Result<bool, Failure> { Ok(tx.state().is_some()) })?;
    let keys = if has_keys { Ok(()) } else { begin_keys(ctx, &mut connection, &user) };
    connection.quit();
    match keys {
        // The login itself is done; what is missing is said.
        Err(Failure { exit: Exit::NoSession, message, hint, .. }) => {
            let hint = hint.map(|hint| format!(": {hint}")).unwrap_or_default();
            let (kind, subject) = ("no-keys".to_owned(), Some(user.to_string()));
            ctx.out.show(&Event::Notice { kind, subject, text: message + &hint })
        }
        keys => keys,
    }
}

/// `dsc logout`
///
/// # Errors
/// [`Failure`]; offline the token is kept, as it would go on to be good.
pub fn logout(ctx: &mut Context) -> Result<(), Failure> {
    let profile = ctx.profile()?;
    let (Some(_), Some(name), Some(user)) = (&profile.token, profile.token_name, profile.user) else {
        return Err(Failure::failed("nobody is logged in here"));
    };
    match ctx.connect() {
        Ok(mut connection) => {
            // It may have been taken back elsewhere.
            let revoked = connection.ask(&format!("/revoke {name}"))?.reply;
            if let Err(refusal) = revoked
                && refusal.code != "not-found"
            {
                return Err(refusal.into());
            }
            connection.quit();
        }
        // The server does not take the token: there is nothing to give back.
        Err(failure) if failure.exit == Exit::Refused && !failure.temporary => {}
        Err(failure) => return Err(failure),
    }
    forget_token(ctx)?;
    done(ctx, &user, format!("{user} is logged out; keys and history stay in this home"))
}

/// `dsc passwd`
///
/// # Errors
/// [`Failure`].
pub fn passwd(ctx: &mut Context) -> Result<(), Failure> {
    let (server, user) = (ctx.server()?, ctx.user()?);
    belongs_to(&ctx.profile()?, &user)?;
    let [old, new] = ctx.prompt.change_password(user.as_str())?;
    // By the old password and not by the token: it is then known to be right before the change.
    let mut connection = ctx.log_in(&server, &user, &old)?;
    connection.ask(&command(&["/passwd", old.0.as_str(), new.0.as_str()]))?.reply?;
    // Every token has ended with it.
    if ctx.profile()?.token.is_some() {
        forget_token(ctx)?;
        ctx.keep_token(&mut connection, &server, &user)?;
    }
    connection.quit();
    done(ctx, &user, format!("{user} has a new password; every other session and token has ended"))
}

/// `dsc whoami`
///
/// # Errors
/// [`Failure`]; that the server cannot be reached is none.
pub fn whoami(ctx: &mut Context) -> Result<(), Failure> {
    let profile = ctx.profile()?;
    let device = match ctx.store_status()? {
        Status::Missing => None,
        _ => ctx.store()?.transact(|tx| -> Result<_, Failure> {
            Ok(tx.state().map(|state| state.me.address().device.to_string()))
        })?,
    };
    let user = ctx.user().ok().or(profile.user);
    let server = ctx.server().ok().map(|server| server.to_string()).or(profile.server);
    let token = profile.token.is_some();
    let confirmed = token
        && match ctx.connect() {
            Ok(mut connection) => {
                let confirmed = connection.ask("/whoami")?.reply?;
                connection.quit();
                confirmed.key("user") == user.as_ref().map(UserName::as_str)
            }
            Err(failure) if matches!(failure.exit, Exit::Network | Exit::Refused) => {
                ctx.out.notice("not-confirmed", failure.message)?;
                false
            }
            Err(failure) => return Err(failure),
        };
    let user = user.map(|user| user.to_string());
    ctx.out.show(&Event::Row(Row::Account { user, server, device, token, confirmed }))
}

/// `dsc passphrase`
///
/// # Errors
/// [`Failure`].
pub fn passphrase(ctx: &mut Context, remove: bool) -> Result<(), Failure> {
    let new = match (ctx.store_status()?, remove) {
        // The failure of a missing store.
        (Status::Missing, _) => return ctx.store().map(drop),
        (Status::Open, true) => return Err(Failure::failed("the key store has no passphrase")),
        (Status::Open, false) => {
            let new = ctx.prompt.new_passphrase()?;
            ctx.store = Some(Store::open(&ctx.home, None)?);
            Some(new)
        }
        (Status::NeedsPassphrase, true) => {
            ctx.store()?;
            let home = ctx.home.display();
            ctx.prompt.confirm(&format!("Remove the passphrase, so that whoever can read {home} has the keys?"))?;
            None
        }
        (Status::NeedsPassphrase, false) => {
            let [old, new] = ctx.prompt.change_passphrase()?;
            ctx.store = Some(Store::open(&ctx.home, Some(&old))?);
            Some(new)
        }
    };
    ctx.store()?.change_passphrase(new.as_ref(), Cost::DEFAULT)?;
    let text = if new.is_some() { "the key store has a new passphrase" } else { "the key store has no passphrase now" };
    ctx.out.notice("done", text)
}

/// The server and the account of the options or the settings, or else of the person at the terminal; both
/// must be those of the home, if it has any.
fn whom(ctx: &mut Context) -> Result<(Endpoint, UserName), Failure> {
    let server = match ctx.server() {
        Ok(server) => server,
        Err(_) => Endpoint::parse(ctx.prompt.line("Server: ", "--server HOST")?.trim())?,
    };
    let user = match ctx.user() {
        Ok(user) => user,
        Err(_) => {
            let name = ctx.prompt.line("Name of the account: ", "--user NAME")?;
            UserName::parse(name.trim()).map_err(|error| Failure::usage(error.to_string()))?
        }
    };
    belongs_to(&ctx.profile()?, &user)?;
    Ok((server, user))
}

/// After the first login: no later command has to be told or asked.
fn settle(ctx: &mut Context, connection: &mut Connection, server: &Endpoint, user: &UserName) -> Result<(), Failure> {
    ctx.remember(server, user)?;
    ctx.keep_token(connection, server, user)
}

/// Makes the account's keys and publishes them, where this is its first device.
fn begin_keys(ctx: &mut Context, connection: &mut Connection, user: &UserName) -> Result<(), Failure> {
    let out = ctx.out;
    let mut show = |event: &Event| out.show(event);
    Client { store: ctx.store()?, server: connection, show: &mut show }.begin_account(user, None)
}

fn forget_token(ctx: &mut Context) -> Result<(), Failure> {
    ctx.store()?.transact(|tx| -> Result<(), Failure> {
        let mut profile = tx.profile();
        (profile.token, profile.token_name) = (None, None);
        tx.set_profile(profile);
        Ok(())
    })
}

fn done(ctx: &Context, user: &UserName, text: String) -> Result<(), Failure> {
    ctx.out.show(&Event::Notice { kind: "done".to_owned(), subject: Some(user.to_string()), text })
}
