//! `/register`, `/login`, `/takeover`: from a stranger to a member, in steps.
//!
//! A login by password reads the account's verifier, compares in the hasher, opens the session in the
//! store and reads what was missed; a token or a certificate is proven inside the opening itself. Only
//! then comes the reply, and nothing else is sent to the session before it.

use super::{Core, Wait as AnyWait, rate_limited};
use crate::hub::effects::Effect;
use crate::hub::settings::Registration;
use crate::hub::throttle::{Bucket, Ended, Hold, Try};
use crate::hub::{Online, Rates};
use crate::ops::{
    AccountId, Answer, Arrival, Behind, Credentials, Done, HashDone, HashOp, MessageId, Op, Outcome, Password, Person,
    Proof, Query, Refused, SessionOpened, Sha256,
};
use crate::protocol::{Code, Head, Line, MAX_LINE, RoomName, Target, UserName};
use crate::session::delivery::Delivery;
use crate::session::signals::SignalDelivery;
use crate::session::{ConnId, Member, Overlap, State};

/// Messages that follow a login at once; the rest is announced.
const MISSED_MAX: usize = 100;
/// Bytes that they may have, so that they fit the queue of a session that reads.
const MISSED_BYTES: usize = 48 * 1024;
/// What a token begins with.
pub(super) const TOKEN_PREFIX: &str = "token:";
/// Longest password, in bytes.
const PASSWORD_MAX: usize = 1024;
/// Shortest password, in bytes (NIST SP 800-63B).
const PASSWORD_MIN: usize = 8;

/// Where a login or a registration stands.
#[derive(Debug)]
pub(super) enum Wait {
    /// Whether the name is free is being read, before a password's work is spent on it.
    Name { user: UserName, password: Password, invite: Option<Sha256> },
    /// A registration's password is being hashed.
    Hash { user: UserName, invite: Option<Sha256> },
    /// The account is being made.
    Register { user: UserName },
    /// The verifier is being read.
    Credentials { login: Try, password: Password, takeover: bool },
    /// The password is being compared; the epoch of the verifier, if there is an account.
    Verify { login: Try, epoch: Option<i64>, takeover: bool },
    /// The session is being opened.
    Open { login: Try, takeover: bool },
    /// What was missed is being read.
    Arrival { invitations: Vec<(RoomName, UserName)>, behind: Vec<Behind> },
}

impl From<Wait> for AnyWait {
    fn from(wait: Wait) -> AnyWait {
        AnyWait::Login(wait)
    }
}

/// A login that waits for the end of others: as many are under way as may fail.
#[derive(Debug)]
pub(super) struct Queued {
    conn: ConnId,
    head: Head,
    user: UserName,
    password: Option<Password>,
    takeover: bool,
}

/// Whether a new password will do for an account of this name; else the words for the answer.
pub fn weakness(user: &UserName, password: &Password) -> Option<&'static str> {
    let text = password.0.as_str();
    if !(PASSWORD_MIN..=PASSWORD_MAX).contains(&text.len()) {
        Some("a password has 8 to 1024 bytes")
    } else if text.eq_ignore_ascii_case(user.as_str()) {
        Some("a password is not the name")
    } else if text.starts_with(TOKEN_PREFIX) {
        Some("a password does not begin with token:")
    } else {
        None
    }
}

/// The reply to a password that will not do.
pub(super) fn weak_password(head: &Head, why: &str) -> Line {
    Line::err(head, Code::WeakPassword).key("max", PASSWORD_MAX).text(why)
}

impl Core {
    pub(super) fn register(
        &mut self,
        conn: ConnId,
        head: Head,
        user: UserName,
        password: Password,
        invite: Option<Password>,
    ) {
        let invite = match (self.hub.settings.registration, invite) {
            (Registration::Open, _) => None,
            (Registration::Invite, Some(code)) => Some(Sha256::of(code.0.as_bytes())),
            (Registration::Invite, None) => {
                return self.error(conn, &head, Code::RegistrationClosed, "an invitation code is needed here");
            }
            (Registration::Closed, _) => {
                return self.error(conn, &head, Code::RegistrationClosed, "ask the operator for an account");
            }
        };
        if let Some(why) = weakness(&user, &password) {
            return self.reply(conn, weak_password(&head, why));
        }
        let limit = self.hub.settings.registrations_per_hour;
        let Some(network) = self.network(conn) else { return };
        if let Err(wait) = self.throttle.registration(network, limit, self.now.monotonic) {
            return self.reply(conn, rate_limited(&head, wait));
        }
        let query = Query::People(vec![user.clone()]);
        self.ask(conn, head, Wait::Name { user, password, invite }, query);
        self.authenticating(conn);
    }

    fn register_name(
        &mut self,
        conn: ConnId,
        head: Head,
        (user, password, invite): (UserName, Password, Option<Sha256>),
        taken: Result<bool, Refused>,
    ) {
        let refused = match taken {
            Ok(false) => {
                if !self.hash(conn, head, Wait::Hash { user, invite }, HashOp::Create(password)) {
                    self.anonymous(conn);
                    self.forget_registration(conn);
                }
                return;
            }
            Ok(true) => Refused::NameTaken,
            Err(refused) => refused,
        };
        self.anonymous(conn);
        self.forget_registration(conn);
        self.refuse(conn, &head, refused);
    }

    pub(super) fn login(
        &mut self,
        conn: ConnId,
        head: Head,
        user: UserName,
        password: Option<Password>,
        takeover: bool,
    ) {
        let Some(network) = self.network(conn) else { return };
        let limit = self.hub.settings.logins_per_minute;
        let login = match self.throttle.login(&user, network, limit, self.now.monotonic) {
            Ok(login) => login,
            Err(Hold::Until(wait)) => return self.reply(conn, rate_limited(&head, wait)),
            Err(Hold::Undecided) => {
                if let Some(session) = self.hub.session_mut(conn) {
                    session.in_flight += 1;
                    session.overlap = Overlap::Nothing;
                }
                self.queued_logins.push(Queued { conn, head, user, password, takeover });
                return self.authenticating(conn);
            }
        };
        let proof = match password {
            Some(password) if !password.0.starts_with(TOKEN_PREFIX) => {
                let query = Query::Credentials(user.clone());
                self.ask(conn, head, Wait::Credentials { login, password, takeover }, query);
                return self.authenticating(conn);
            }
            Some(token) => Proof::Token(Sha256::of(token.0.as_bytes())),
            None => match self.hub.session(conn).and_then(|session| session.peer.certificate) {
                Some(certificate) => Proof::Certificate(certificate),
                None => return self.login_failed(conn, &head, login, Refused::AuthFailed),
            },
        };
        self.open_session(conn, head, login, takeover, proof);
        self.authenticating(conn);
    }

    /// A login has ended: those that waited for it are tried again, in their order.
    fn decided(&mut self, login: Try, ended: Ended) {
        self.throttle.decided(login, ended);
        for Queued { conn, head, user, password, takeover } in std::mem::take(&mut self.queued_logins) {
            if self.hub.session(conn).is_none_or(|session| session.closing) {
                continue;
            }
            self.answered(Some(conn));
            self.anonymous(conn);
            self.login(conn, head, user, password, takeover);
            self.settle(conn);
        }
    }

    /// The connection of a login was told to close meanwhile: nobody is told how it ended, so that it proves
    /// nothing and counts for nothing, but those that waited for it go on.
    pub(super) fn login_dropped(&mut self, wait: Wait) {
        match wait {
            Wait::Credentials { login, .. } | Wait::Verify { login, .. } | Wait::Open { login, .. } => {
                self.decided(login, Ended::Undone);
            }
            Wait::Name { .. } | Wait::Hash { .. } | Wait::Register { .. } | Wait::Arrival { .. } => {}
        }
    }

    fn authenticating(&mut self, conn: ConnId) {
        if let Some(session) = self.hub.session_mut(conn) {
            session.state = State::Authenticating(None);
        }
    }

    fn anonymous(&mut self, conn: ConnId) {
        if let Some(session) = self.hub.session_mut(conn) {
            session.state = State::Anonymous;
        }
    }

    fn open_session(&mut self, conn: ConnId, head: Head, login: Try, takeover: bool, proof: Proof) {
        let op = Op::OpenSession { name: login.user.clone(), proof };
        self.persist(conn, head, Wait::Open { login, takeover }, op);
    }

    fn login_failed(&mut self, conn: ConnId, head: &Head, login: Try, why: Refused) {
        self.anonymous(conn);
        let wrong = why == Refused::AuthFailed;
        if wrong {
            self.counts.failed_logins += 1;
            log::warn!("connection {conn}: login of {} failed", login.user);
        }
        self.refuse(conn, head, why);
        self.decided(login, if wrong { Ended::Failed } else { Ended::Undone });
    }

    pub(super) fn login_hashed(&mut self, conn: ConnId, head: Head, wait: Wait, done: HashDone) {
        match (wait, done) {
            (Wait::Hash { user, invite }, HashDone::Created(verifier)) => {
                // Nobody waits for the account of a connection that is gone.
                if self.hub.session(conn).is_some() {
                    let op = Op::Register { name: user.clone(), verifier, invite };
                    self.persist(conn, head, Wait::Register { user }, op);
                }
            }
            (Wait::Hash { .. }, _) => {
                self.anonymous(conn);
                self.forget_registration(conn);
                self.refuse(conn, &head, Refused::Internal);
            }
            (Wait::Verify { login, epoch, takeover }, HashDone::Verified { matches, upgraded }) => match epoch {
                Some(epoch) if matches => {
                    self.open_session(conn, head, login, takeover, Proof::Password { epoch, upgraded });
                }
                _ => self.login_failed(conn, &head, login, Refused::AuthFailed),
            },
            (Wait::Verify { login, .. }, _) => self.login_failed(conn, &head, login, Refused::Internal),
            (
                Wait::Name { .. }
                | Wait::Register { .. }
                | Wait::Credentials { .. }
                | Wait::Open { .. }
                | Wait::Arrival { .. },
                _,
            ) => {
                self.misfit(conn, &head);
            }
        }
    }

    pub(super) fn login_answered(&mut self, conn: ConnId, head: Head, wait: Wait, done: Done) {
        match (wait, done) {
            (Wait::Credentials { login, password, takeover }, Done::Query(Ok(Answer::Credentials(credentials)))) => {
                self.verify(conn, head, login, password, takeover, credentials);
            }
            (Wait::Credentials { login, .. }, _) => self.login_failed(conn, &head, login, Refused::Internal),
            (Wait::Name { user, password, invite }, Done::Query(answer)) => {
                let taken = answer.map(|answer| matches!(answer, Answer::People(found) if !found.is_empty()));
                self.register_name(conn, head, (user, password, invite), taken);
            }
            (Wait::Register { user }, Done::Op(Ok(Outcome::Registered(account)))) => {
                log::info!("connection {conn}: {user} registered");
                let opened = SessionOpened {
                    account,
                    admin: false,
                    receipts: false,
                    rooms: Vec::new(),
                    behind: Vec::new(),
                    invitations: Vec::new(),
                };
                self.enter(conn, &user, opened);
                self.welcome(conn, Line::ok(&head).key("user", &user), None, Vec::new());
            }
            (Wait::Register { .. }, Done::Op(result)) => {
                self.anonymous(conn);
                let refused = result.err().unwrap_or(Refused::Internal);
                // What was refused only now has cost a password's work: it counts, or strangers could keep the
                // hasher busy without an end.
                if refused == Refused::Internal {
                    self.forget_registration(conn);
                }
                self.refuse(conn, &head, refused);
            }
            (Wait::Open { login, takeover }, Done::Op(Ok(Outcome::SessionOpened(opened)))) => {
                let user = login.user.clone();
                self.opened_session(conn, head, user, takeover, *opened);
                self.decided(login, Ended::Held);
            }
            (Wait::Open { login, .. }, Done::Op(result)) => {
                self.login_failed(conn, &head, login, result.err().unwrap_or(Refused::Internal));
            }
            (Wait::Arrival { invitations, behind }, Done::Query(Ok(Answer::Arrival(mut arrival)))) => {
                let Some(me) = self.hub.member(conn).map(|member| member.person.clone()) else { return };
                self.forget_left(me.id, &mut arrival);
                let line = Line::ok(&head).key("user", &me.name).key("unread", arrival.unread);
                self.welcome(conn, line, Some((arrival, behind)), invitations);
            }
            (Wait::Arrival { .. }, _) => {
                self.leave_account(conn);
                self.refuse(conn, &head, Refused::Internal);
            }
            (
                Wait::Name { .. } | Wait::Hash { .. } | Wait::Verify { .. } | Wait::Register { .. } | Wait::Open { .. },
                _,
            ) => {
                self.misfit(conn, &head);
            }
        }
    }

    /// The arrival may have been read before the account was put out of a room: what it missed there is not
    /// for its eyes any more.
    fn forget_left(&self, account: AccountId, arrival: &mut Arrival) {
        let online = self.hub.online(account);
        let left = |log, in_room| in_room && !online.is_some_and(|online| online.rooms.contains(&log));
        let Arrival { unread, page, rest } = arrival;
        page.rows.retain(|row| {
            let keeps = !left(row.conversation, row.in_room);
            *unread = unread.saturating_sub(u64::from(!keeps));
            keeps
        });
        rest.retain(|row| {
            let keeps = !left(row.conversation, matches!(row.target, Target::Room(_)));
            *unread = unread.saturating_sub(if keeps { 0 } else { row.count });
            keeps
        });
    }

    fn forget_registration(&mut self, conn: ConnId) {
        if let Some(network) = self.network(conn) {
            self.throttle.not_registered(network);
        }
    }

    fn verify(
        &mut self,
        conn: ConnId,
        head: Head,
        login: Try,
        password: Password,
        takeover: bool,
        credentials: Option<Credentials>,
    ) {
        let (epoch, verifier) = credentials.map(|found| (found.epoch, found.verifier)).unzip();
        if self.hashing >= super::HASHES_MAX {
            self.busy(conn, &head);
            self.anonymous(conn);
            return self.decided(login, Ended::Undone);
        }
        self.hash(conn, head, Wait::Verify { login, epoch, takeover }, HashOp::Verify(password, verifier));
    }

    fn opened_session(&mut self, conn: ConnId, head: Head, user: UserName, takeover: bool, mut opened: SessionOpened) {
        // Gone, or told to go, while the password was looked at: nobody comes in.
        if self.hub.session(conn).is_none_or(|session| session.closing) {
            return;
        }
        let live = self.hub.sessions_of(opened.account);
        let room = self.hub.settings.sessions_per_account.max(1);
        if live.len() >= room && !takeover {
            self.anonymous(conn);
            let line = Line::err(&head, Code::InUse).key("max", room);
            return self.reply(conn, line.text("too many sessions of this account; /takeover ends the oldest"));
        }
        let manual = self.hub.session(conn).is_some_and(|session| session.manual_ack);
        let behind = std::mem::take(&mut opened.behind);
        let invitations = std::mem::take(&mut opened.invitations);
        let account = opened.account;
        self.enter(conn, &user, opened);
        // The old ones end only now, so that the account is never offline in between.
        for oldest in live.iter().take((live.len() + 1).saturating_sub(room)) {
            self.bye(*oldest, "replaced", Some("another session took over"));
        }
        if let Some(member) = self.hub.member_mut(conn) {
            member.delivery = Delivery::arriving(&behind);
        }
        let limit = if manual { 0 } else { MISSED_MAX };
        let query = Query::Arrival { account, behind: behind.clone(), limit, max_bytes: MISSED_BYTES };
        self.ask(conn, head, Wait::Arrival { invitations, behind }, query);
    }

    /// The session counts for its account from now on.
    fn enter(&mut self, conn: ConnId, user: &UserName, opened: SessionOpened) {
        self.next_ticket += 1;
        let person = Person { id: opened.account, name: user.clone() };
        let since = self.now.wall;
        let member = Member {
            person: person.clone(),
            login: self.next_ticket,
            since,
            target: None,
            delivery: Delivery::default(),
            signals: SignalDelivery::default(),
            watching: Default::default(),
            typing: Vec::new(),
        };
        let (burst, now) = (self.hub.settings.message_burst, self.now.monotonic);
        let (_, change_burst) = self.hub.settings.change_rate();
        let (_, exchange_burst) = self.hub.settings.exchange_rate();
        let fresh = || Online {
            person,
            sessions: Vec::new(),
            rooms: Vec::new(),
            admin: opened.admin,
            receipts: opened.receipts,
            away: None,
            since,
            rates: Rates {
                messages: Bucket::full(burst, now),
                changes: Bucket::full(change_burst, now),
                exchanges: Bucket::full(exchange_burst, now),
            },
            announced: false,
            told_low: Vec::new(),
        };
        self.hub.enter(conn, member, fresh, opened.rooms);
    }

    /// The reply to a login, and with it whatever was missed.
    fn welcome(
        &mut self,
        conn: ConnId,
        reply: Line,
        arrival: Option<(Arrival, Vec<Behind>)>,
        invitations: Vec<(RoomName, UserName)>,
    ) {
        let Some(session) = self.hub.session_mut(conn) else { return };
        let address = session.peer.address;
        let mut out = reply.finish();
        let (page, rest, behind) = match arrival {
            Some((arrival, behind)) => (arrival.page, arrival.rest, behind),
            None => Default::default(),
        };
        for row in &page.rows {
            out.extend_from_slice(page.line(row));
        }
        for row in &rest {
            super::messages::unread(Line::event("unread"), row).finish_into(&mut out);
        }
        for (room, by) in &invitations {
            Line::event("invite").arg(room).arg(by).finish_into(&mut out);
        }
        session.state = match std::mem::replace(&mut session.state, State::Anonymous) {
            State::Authenticating(Some(member)) => State::Ready(member),
            other => other,
        };
        let Some(member) = session.member() else { return };
        let me = member.person.clone();
        self.counts.logins += 1;
        self.counts.delivered += page.rows.len() as u64;
        log::info!("connection {conn}: {} logged in", me.name);
        self.out.push(Effect::MaxLine(conn, MAX_LINE));
        self.wait_for_anything(conn);
        self.send(conn, out);
        self.note_missed(conn, me.id, &behind, &rest);

        let others = self.hub.sessions_of(me.id);
        self.event(&others, Some(conn), Line::event("login").arg(address));
        let online = self.hub.online_mut(me.id);
        if online.is_some_and(|online| !std::mem::replace(&mut online.announced, true)) {
            self.tell_watchers(&me.name, Line::event("online").arg(&me.name));
        }
    }

    /// Conversations of which everything unread was sent have no gap any more; of the others, everything
    /// in front of the first that was announced was sent.
    fn note_missed(&mut self, conn: ConnId, account: AccountId, behind: &[Behind], rest: &[crate::ops::UnreadRow]) {
        let Some(session) = self.hub.session_mut(conn) else { return };
        let at = session.sent;
        let manual = session.manual_ack;
        let Some(member) = session.member_mut().filter(|member| member.person.id == account) else { return };
        if !manual {
            for b in behind {
                let announced = rest.iter().find(|row| row.conversation == b.conversation);
                let sent = announced.map_or(b.last, |row| MessageId(row.first.0.saturating_sub(1)));
                member.delivery.queued_unread(b.conversation, b.read, sent, at);
            }
        }
        member.delivery.take_page(&[], false, |_| {});
        self.catch_up(conn);
    }
}
