//! One's own account: password, tokens, certificates, receipts, profile, and its end.

use super::{Core, Wait as AnyWait, login};
use crate::ops::{
    AccountId, Answer, Done, HashDone, HashOp, Op, Outcome, Password, Person, Query, Refused, RoomChange, Sha256,
    Verifier,
};
use crate::protocol::{Code, Head, Label, Line};
use crate::session::ConnId;

/// What a command about the account waits for.
#[derive(Debug)]
pub(super) enum Wait {
    /// Nothing but the end.
    Done,
    Receipts(bool),
    Tokens,
    /// The token's text, shown once it is stored.
    Token(Password),
    Certificates,
    /// The certificate that is being bound.
    Certificate(Sha256),
    /// The verifier is being read, for what follows.
    Credentials(Password, Then),
    /// The password is being compared.
    Verify(i64, Then),
    /// A new password is being hashed.
    Create(i64),
    /// The new verifier is being stored.
    Changed,
    /// The account is being erased.
    Erased,
}

/// What a password is asked for.
#[derive(Debug)]
pub(super) enum Then {
    Change(Password),
    Erase,
}

impl From<Wait> for AnyWait {
    fn from(wait: Wait) -> AnyWait {
        AnyWait::Account(wait)
    }
}

impl Core {
    pub(super) fn logout(&mut self, conn: ConnId, head: &Head) {
        self.leave_account(conn);
        if let Some(session) = self.hub.session_mut(conn) {
            session.manual_ack = false;
            log::info!("connection {conn}: logged out");
        }
        self.ok(conn, head);
        self.wait_for_login(conn);
    }

    pub(super) fn passwd(&mut self, conn: ConnId, head: Head, me: &Person, old: Password, new: Password) {
        match login::weakness(&me.name, &new) {
            Some(why) => self.reply(conn, login::weak_password(&head, why)),
            None => self.prove(conn, head, me, old, Then::Change(new)),
        }
    }

    pub(super) fn unregister(&mut self, conn: ConnId, head: Head, me: &Person, password: Password) {
        self.prove(conn, head, me, password, Then::Erase);
    }

    /// Asks for the password again, at the price and under the limits of a login.
    fn prove(&mut self, conn: ConnId, head: Head, me: &Person, password: Password, then: Then) {
        let Some(network) = self.network(conn) else { return };
        let limit = self.hub.settings.logins_per_minute;
        match self.throttle.proof(&me.name, network, limit, self.now.monotonic) {
            Err(wait) => self.reply(conn, super::rate_limited(&head, wait)),
            Ok(()) => self.ask(conn, head, Wait::Credentials(password, then), Query::Credentials(me.name.clone())),
        }
    }

    fn proof_ended(&mut self, conn: ConnId, wrong: bool) {
        let name = self.hub.member(conn).map(|member| member.person.name.clone());
        if let (false, Some(network), Some(name)) = (wrong, self.network(conn), name) {
            self.throttle.proof_held(&name, network);
        }
    }

    pub(super) fn account_hashed(&mut self, conn: ConnId, head: Head, wait: Wait, done: HashDone) {
        let Some(account) = self.hub.member(conn).map(|member| member.person.id) else { return };
        match (wait, done) {
            (Wait::Verify(epoch, then), HashDone::Verified { matches: true, .. }) => {
                self.proof_ended(conn, false);
                match then {
                    Then::Erase => self.persist(conn, head, Wait::Erased, Op::Unregister { account, epoch }),
                    Then::Change(new) => {
                        self.hash(conn, head, Wait::Create(epoch), HashOp::Create(new));
                    }
                }
            }
            (Wait::Verify(..), HashDone::Verified { matches: false, .. }) => {
                self.proof_ended(conn, true);
                self.error(conn, &head, Code::AuthFailed, "wrong password");
            }
            (Wait::Create(epoch), HashDone::Created(verifier)) => {
                let op = Op::ChangePassword { account, epoch, verifier };
                self.persist(conn, head, Wait::Changed, op);
            }
            (_, HashDone::Failed) => self.refuse(conn, &head, Refused::Internal),
            _ => self.misfit(conn, &head),
        }
    }

    fn verify_again(
        &mut self,
        conn: ConnId,
        head: Head,
        password: Password,
        then: Then,
        found: Option<(Verifier, i64)>,
    ) {
        let Some((verifier, epoch)) = found else {
            self.proof_ended(conn, true);
            return self.error(conn, &head, Code::AuthFailed, "wrong password");
        };
        if !self.hash(conn, head, Wait::Verify(epoch, then), HashOp::Verify(password, Some(verifier))) {
            self.proof_ended(conn, false);
        }
    }

    pub(super) fn token(&mut self, conn: ConnId, head: Head, me: &Person, name: Option<Label>) {
        let Ok(text) = self.random_text::<32>() else { return self.refuse(conn, &head, Refused::Internal) };
        let token = Password::new(&format!("{}{}", login::TOKEN_PREFIX, text.0.as_str()));
        let hash = Sha256::of(token.0.as_bytes());
        let name = name.map(|name| name.to_string());
        self.persist(conn, head, Wait::Token(token), Op::AddToken { account: me.id, name, hash });
    }

    /// `N` random bytes in base64url.
    pub(super) fn random_text<const N: usize>(&mut self) -> Result<Password, super::RandomFailed> {
        use base64ct::{Base64UrlUnpadded, Encoding as _};
        let mut bytes = zeroize::Zeroizing::new([0; N]);
        (self.random)(bytes.as_mut_slice())?;
        Ok(Password(zeroize::Zeroizing::new(Base64UrlUnpadded::encode_string(bytes.as_slice()))))
    }

    pub(super) fn cert_add(&mut self, conn: ConnId, head: Head, me: &Person) {
        match self.hub.session(conn).and_then(|session| session.peer.certificate) {
            Some(certificate) => {
                let op = Op::AddCertificate { account: me.id, certificate };
                self.persist(conn, head, Wait::Certificate(certificate), op);
            }
            None => self.error(conn, &head, Code::NotFound, "connect with a client certificate first"),
        }
    }

    pub(super) fn cert_drop(&mut self, conn: ConnId, head: Head, me: &Person, sha256: Option<[u8; 32]>) {
        let own = || self.hub.session(conn).and_then(|session| session.peer.certificate);
        match sha256.map(Sha256).or_else(own) {
            Some(certificate) => {
                let op = Op::DropCertificate { account: me.id, certificate };
                self.persist(conn, head, Wait::Certificate(certificate), op);
            }
            None => self.error(conn, &head, Code::NotFound, "name the certificate; /cert list shows them"),
        }
    }

    pub(super) fn account_answered(&mut self, conn: ConnId, head: Head, me: Option<Person>, wait: Wait, done: Done) {
        let Some(me) = me else { return self.misfit(conn, &head) };
        match (wait, done) {
            (Wait::Credentials(password, then), Done::Query(Ok(Answer::Credentials(found)))) => {
                let found = found.map(|found| (found.verifier, found.epoch));
                self.verify_again(conn, head, password, then, found);
            }
            (Wait::Credentials(..), Done::Query(Err(refused))) => {
                self.proof_ended(conn, false);
                self.refuse(conn, &head, refused);
            }
            (_, Done::Op(Err(refused)) | Done::Query(Err(refused))) => self.refuse(conn, &head, refused),
            (Wait::Done, Done::Op(Ok(_))) => self.ok(conn, &head),
            (Wait::Receipts(on), Done::Op(Ok(_))) => {
                if let Some(online) = self.hub.online_mut(me.id) {
                    online.receipts = on;
                }
                self.ok(conn, &head);
            }
            (Wait::Token(token), Done::Op(Ok(Outcome::TokenNamed(name)))) => {
                log::info!("connection {conn}: {} made the token {name}", me.name);
                self.reply(conn, Line::ok(&head).key("name", name).key("token", token.0.as_str()));
            }
            (Wait::Tokens, Done::Query(Ok(Answer::Tokens(rows)))) => {
                let mut out = Vec::new();
                for row in &rows {
                    let line = Line::row("token").arg(&row.name).key("created", row.created);
                    match row.used {
                        Some(used) => line.key("used", used).finish_into(&mut out),
                        None => line.key("used", "never").finish_into(&mut out),
                    }
                }
                Line::ok(&head).key("count", rows.len()).finish_into(&mut out);
                self.send(conn, out);
            }
            (Wait::Certificate(certificate), Done::Op(Ok(_))) => {
                self.reply(conn, Line::ok(&head).key("sha256", certificate.to_hex()));
            }
            (Wait::Certificates, Done::Query(Ok(Answer::Certificates(rows)))) => {
                let mut out = Vec::new();
                for row in &rows {
                    Line::row("cert").arg(row.to_hex()).finish_into(&mut out);
                }
                Line::ok(&head).key("count", rows.len()).finish_into(&mut out);
                self.send(conn, out);
            }
            (Wait::Changed, Done::Op(Ok(_))) => {
                log::info!("connection {conn}: {} changed the password", me.name);
                self.ok(conn, &head);
                self.end_sessions(me.id, Some(conn), "replaced", Some("the password was changed"));
            }
            (Wait::Erased, Done::Op(Ok(Outcome::Unregistered(rooms)))) => {
                log::info!("connection {conn}: {} erased the account", me.name);
                self.end_sessions(me.id, Some(conn), "kicked", Some("the account was erased"));
                self.left_rooms(me.id, Some(conn), &rooms);
                self.logout(conn, &head);
            }
            _ => self.misfit(conn, &head),
        }
    }

    /// Tells the rooms of an account that is gone.
    pub(super) fn left_rooms(&mut self, account: AccountId, except: Option<ConnId>, rooms: &[RoomChange]) {
        for change in rooms {
            if let Some(subject) = &change.subject {
                self.left(account, &subject.name, change, except, None);
            }
        }
    }
}
