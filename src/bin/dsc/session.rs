//! The key store of the home and a logged-in connection: what most commands begin with.

use downstream::e2e::keyslot::Cost;
use downstream::protocol::{Password, UserName};
use zeroize::Zeroizing;

use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::event::Event;
use crate::net::{Connection, Endpoint, OPEN_TIME, Trust};
use crate::server::{Refusal, Reply, Server as _, command};
use crate::store::{Profile, Status, Store, StoreError, Token};

/// How often a person may mistype the passphrase.
const PASSPHRASE_TRIES: usize = 3;
/// Milliseconds, on average, before a login is tried again for which the account had too many sessions.
const IN_USE_WAITS: [u64; 6] = [100, 200, 400, 800, 1600, 3200];
/// The file of servers that were met, in the home.
const KNOWN_SERVERS: &str = "known_servers";

impl Context {
    /// The key store of the home. Opened at the first call, which asks for the passphrase if there is one.
    ///
    /// # Errors
    /// There is no store, it cannot be opened, or there is nobody to ask.
    pub fn store(&mut self) -> Result<&mut Store, Failure> {
        if self.store.is_none() {
            self.store = Some(self.open_store()?);
        }
        self.store.as_mut().ok_or_else(|| Failure::failed("the key store is not open"))
    }

    /// The key store of the home, made if there is none: then a new passphrase is asked for, or none is set.
    ///
    /// # Errors
    /// As [`Context::store`]; and it cannot be made.
    pub fn store_or_new(&mut self, no_passphrase: bool) -> Result<&mut Store, Failure> {
        if self.store.is_none() && self.store_status()? == Status::Missing {
            self.make_home()?;
            let passphrase = if no_passphrase {
                let home = self.home.display();
                let text = format!("the key store gets no passphrase: whoever can read {home} has the keys");
                self.out.notice("no-passphrase", text)?;
                None
            } else {
                Some(self.prompt.new_passphrase()?)
            };
            self.store = Some(Store::create(&self.home, passphrase.as_ref(), Cost::DEFAULT)?);
        }
        self.store()
    }

    /// What it takes to open the key store of the home.
    ///
    /// # Errors
    /// Others can reach the home or what is in it.
    pub fn store_status(&self) -> Result<Status, Failure> {
        self.close_home()?;
        Ok(Store::status(&self.home)?)
    }

    fn open_store(&self) -> Result<Store, Failure> {
        let typed = self.prompt.types_passphrase();
        match self.store_status()? {
            Status::Missing => Err(StoreError::NotThere(self.home.clone()).into()),
            Status::Open if typed => Ok(Store::open(&self.home, None)?),
            // A passphrase that was given for a store without one is a mistake, which the store names.
            Status::Open | Status::NeedsPassphrase => {
                let mut tries = if typed { PASSPHRASE_TRIES } else { 1 };
                loop {
                    tries -= 1;
                    match Store::open(&self.home, Some(&self.prompt.passphrase()?)) {
                        Err(StoreError::WrongPassphrase) if tries > 0 => {
                            self.out.notice("wrong-passphrase", "wrong passphrase; try again")?;
                        }
                        opened => return Ok(opened?),
                    }
                }
            }
        }
    }

    /// What the store says of account and token; nothing where there is no store.
    ///
    /// # Errors
    /// As [`Context::store`].
    pub fn profile(&mut self) -> Result<Profile, Failure> {
        if self.store.is_none() && self.store_status()? == Status::Missing {
            return Ok(Profile::default());
        }
        self.store()?.transact(|tx| Ok(tx.profile()))
    }

    /// Connects to a server, and shows it if it was trusted on first use. Nobody is logged in.
    ///
    /// # Errors
    /// The server cannot be reached, or is not believed.
    pub fn dial(&self, server: &Endpoint) -> Result<Connection, Failure> {
        self.make_home()?;
        let known = self.home.join(KNOWN_SERVERS);
        let ca = self.ca().map(std::path::Path::to_owned);
        let trust = Trust { known, ca, pin: self.options.pin };
        let opened = Connection::open(server, &trust, OPEN_TIME)?;
        if let Some(first) = opened.first_use {
            let (kind, subject) = ("server-first-use".to_owned(), Some(first.endpoint.to_string()));
            self.out.show(&Event::Notice { kind, subject, text: first.to_string() })?;
        }
        Ok(opened.connection)
    }

    /// A connection, logged in with the kept token, or else with the password, which is asked for. Nothing
    /// counts as read in it but by `/ack`, and nothing missed follows by itself.
    ///
    /// # Errors
    /// No server or account is known; the server cannot be reached, is not believed or says no.
    pub fn connect(&mut self) -> Result<Connection, Failure> {
        let (server, user) = (self.server()?, self.user()?);
        let profile = self.profile()?;
        belongs_to(&profile, &user)?;
        let token = profile.token.filter(|_| profile.server.as_deref() == Some(server.to_string().as_str()));
        // Whoever has to be asked is asked before the server waits.
        let password = match token {
            None => Some(self.prompt.password(user.as_str()).map_err(|failure| match failure.exit {
                Exit::Usage => {
                    failure.hint("`dsc login` keeps a token, so that nobody is asked; or use --password-file FILE")
                }
                _ => failure,
            })?),
            Some(_) => None,
        };
        let mut connection = self.dial(&server)?;
        let secret = password.as_ref().map(|password| password.0.as_str());
        let secret = secret.or(token.as_ref().map(Token::expose)).unwrap_or_default();
        let login = command(&["/login", user.as_str(), secret]);
        let mut answer = enter(&mut connection, &login)?;
        // Most sessions of an account are commands that end within the second.
        for wait in IN_USE_WAITS {
            if !answer.as_ref().is_err_and(|refusal| refusal.code == "in-use") {
                break;
            }
            let jitter = crate::app::random()? % wait.max(1);
            std::thread::sleep(std::time::Duration::from_millis(wait / 2 + jitter));
            answer = connection.ask(&login)?.reply;
        }
        match answer {
            Ok(_) => Ok(connection),
            Err(refusal) if token.is_some() && refusal.code == "auth-failed" => {
                let failure = Failure::new(Exit::Refused, format!("{server} does not take the kept token any more"));
                Err(failure.hint("`dsc login` asks for the password and keeps a new token"))
            }
            Err(refusal) => Err(login_refused(refusal)),
        }
    }

    /// Logs in with a password on a fresh connection.
    ///
    /// # Errors
    /// As [`Context::connect`].
    pub fn log_in(&self, server: &Endpoint, user: &UserName, password: &Password) -> Result<Connection, Failure> {
        let mut connection = self.dial(server)?;
        let login = command(&["/login", user.as_str(), password.0.as_str()]);
        enter(&mut connection, &login)?.map_err(login_refused)?;
        Ok(connection)
    }

    /// Has a logged-in connection give a token, and keeps it in the store with server and account. The one
    /// of before is given back.
    ///
    /// # Errors
    /// The server gives none, or it cannot be kept.
    pub fn keep_token(
        &mut self,
        connection: &mut Connection,
        server: &Endpoint,
        user: &UserName,
    ) -> Result<(), Failure> {
        let before = self.profile()?;
        let name = token_name()?;
        let reply = connection.ask(&format!("/token {name}"))?.reply?;
        // The text itself and no copy of it, so that it is wiped.
        let token = reply.keys.into_iter().find(|(key, _)| key == "token").map(|(_, token)| Zeroizing::new(token));
        let token = token.ok_or_else(|| Failure::new(Exit::Network, "the server gave no token"))?;
        let profile = Profile {
            server: Some(server.to_string()),
            user: Some(user.clone()),
            token: Some(Token::new(token)),
            token_name: Some(name),
        };
        self.store()?.transact(|tx| -> Result<(), Failure> {
            tx.set_profile(profile);
            Ok(())
        })?;
        if let (Some(old), true) = (before.token_name, before.server == Some(server.to_string())) {
            // It may have ended by itself.
            let _ = connection.ask(&format!("/revoke {old}"))?;
        }
        Ok(())
    }
}

/// Whether a home with this profile may be used as `user`.
///
/// # Errors
/// It belongs to another account.
pub fn belongs_to(profile: &Profile, user: &UserName) -> Result<(), Failure> {
    match &profile.user {
        Some(owner) if owner != user => Err(StoreError::OtherAccount(owner.to_string()).into()),
        _ => Ok(()),
    }
}

/// Enters a session by `/login` or `/register`, in which nothing counts as read by itself: said before, as
/// what was missed would follow the login at once.
///
/// # Errors
/// The connection is lost, or the server does not know manual mode.
pub fn enter(connection: &mut Connection, login: &str) -> Result<Result<Reply, Refusal>, Failure> {
    let mut answers = connection.ask_all(&["/ack manual", login])?.into_iter();
    let mut next = || answers.next().ok_or_else(|| Failure::new(Exit::Network, "the server gave no answer"));
    next()?.reply?;
    Ok(next()?.reply)
}

fn login_refused(refusal: Refusal) -> Failure {
    let hint = match refusal.code.as_str() {
        "auth-failed" => "is it the right name and password? The server answers the same for an unknown name",
        "in-use" => {
            "the account has as many sessions as the server allows: end a `dsc tail` or another program of it, or have the operator raise sessions_per_account"
        }
        _ => return refusal.into(),
    };
    Failure::from(refusal).hint(hint)
}

/// The name under which the server lists this device's token: it tells the account's owner that it is one
/// of `dsc`, and the server nothing else.
fn token_name() -> Result<String, Failure> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed(format!("no randomness: {error}")))?;
    Ok(format!("dsc-{}", downstream::e2e::armour::hex(&bytes)))
}
