//! Others: profiles, who is there, watching, being away, typing.

use std::borrow::Cow;
use std::time::Duration;

use super::{Core, Wait as AnyWait, yes_no};
use crate::ops::{Answer, Done, Person, Query, Refused};
use crate::protocol::{Code, Head, Line, Target, Timestamp, UserName};
use crate::session::ConnId;

/// Rows of a list.
pub(super) const ROWS_MAX: usize = 1000;
/// People whom one session may watch.
const WATCHED_MAX: usize = 1000;
/// How often `/typing` passes, for each session and target.
const TYPING_INTERVAL: Duration = Duration::from_secs(2);
/// Targets of `/typing` remembered for a session; nobody types to more people within the interval.
const TYPING_MAX: usize = 32;

/// Bytes of a member list beyond which away texts are left out: ten thousand of them would be a reply of
/// ten megabytes.
const AWAY_TEXTS_MAX: usize = 256 * 1024;

/// What a command about people waits for.
#[derive(Debug)]
pub(super) enum Wait {
    Profile(UserName),
    Users,
    Who,
    Watch(Vec<UserName>),
    /// Whether the target of this exists and may be written to.
    Target(Target, Purpose),
}

/// What a target is wanted for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    To,
    Typing,
}

impl From<Wait> for AnyWait {
    fn from(wait: Wait) -> AnyWait {
        AnyWait::People(wait)
    }
}

impl Core {
    pub(super) fn profile(&mut self, conn: ConnId, head: Head, me: &Person, user: Option<UserName>) {
        let subject = user.unwrap_or_else(|| me.name.clone());
        let query = Query::Profile { viewer: me.id, subject: subject.clone() };
        self.ask(conn, head, Wait::Profile(subject), query);
    }

    pub(super) fn users(&mut self, conn: ConnId, head: Head, glob: Option<Cow<'_, str>>, after: Option<UserName>) {
        let query = Query::Users { glob: glob.map(Cow::into_owned), after, limit: ROWS_MAX };
        self.ask(conn, head, Wait::Users, query);
    }

    pub(super) fn who(&mut self, conn: ConnId, head: Head, me: &Person, target: Target) {
        let query = match target {
            Target::User(name) => Query::People(vec![name]),
            Target::Room(room) => Query::Members { account: me.id, room },
        };
        self.ask(conn, head, Wait::Who, query);
    }

    pub(super) fn watch(&mut self, conn: ConnId, head: Head, users: Vec<UserName>) {
        self.ask(conn, head, Wait::Watch(users.clone()), Query::People(users));
    }

    pub(super) fn unwatch(&mut self, conn: ConnId, head: &Head, users: &[UserName]) {
        for name in users {
            self.hub.unwatch(conn, name);
        }
        let Some(member) = self.hub.member_mut(conn) else { return };
        member.watching.retain(|name| !users.contains(name));
        let count = member.watching.len();
        self.reply(conn, Line::ok(head).key("watching", count));
    }

    pub(super) fn away(&mut self, conn: ConnId, head: &Head, me: &Person, text: Option<&str>) {
        let now = self.now.wall;
        if let Some(online) = self.hub.online_mut(me.id) {
            online.away = Some(text.map(Box::from));
            online.since = now;
        }
        self.ok(conn, head);
        self.tell_watchers(&me.name, Line::event("away").arg(&me.name).maybe_text(text));
    }

    pub(super) fn back(&mut self, conn: ConnId, head: &Head, me: &Person) {
        let now = self.now.wall;
        if let Some(online) = self.hub.online_mut(me.id)
            && online.away.take().is_some()
        {
            online.since = now;
        }
        self.ok(conn, head);
        self.tell_watchers(&me.name, Line::event("online").arg(&me.name));
    }

    pub(super) fn typing(&mut self, conn: ConnId, head: Head, me: &Person, target: Target) {
        self.with_target(conn, head, me, target, Purpose::Typing);
    }

    pub(super) fn to(&mut self, conn: ConnId, head: Head, me: &Person, target: Target) {
        self.with_target(conn, head, me, target, Purpose::To);
    }

    /// Does what is wanted with a target that may be written to; asks the store where the mirror does not
    /// know it.
    fn with_target(&mut self, conn: ConnId, head: Head, me: &Person, target: Target, purpose: Purpose) {
        let query = match &target {
            Target::User(name) if self.hub.online_by_name(name).is_some() => None,
            Target::Room(name) if self.hub.room_of(me.id, name).is_some() => None,
            Target::User(name) => Some(Query::People(vec![name.clone()])),
            Target::Room(name) => Some(Query::Topic { account: me.id, room: name.clone() }),
        };
        match query {
            Some(query) => self.ask(conn, head, Wait::Target(target, purpose), query),
            None => self.found_target(conn, &head, me, target, purpose),
        }
    }

    fn found_target(&mut self, conn: ConnId, head: &Head, me: &Person, target: Target, purpose: Purpose) {
        match purpose {
            Purpose::To => {
                self.reply(conn, Line::ok(head).key("target", &target));
                if let Some(member) = self.hub.member_mut(conn) {
                    member.target = Some(target);
                }
            }
            Purpose::Typing => {
                self.ok(conn, head);
                self.pass_typing(conn, me, target);
            }
        }
    }

    fn pass_typing(&mut self, conn: ConnId, me: &Person, target: Target) {
        let now = self.now.monotonic;
        let Some(member) = self.hub.member_mut(conn) else { return };
        member.typing.retain(|(_, at)| now.saturating_duration_since(*at) < TYPING_INTERVAL);
        if member.typing.len() >= TYPING_MAX || member.typing.iter().any(|(known, _)| *known == target) {
            return;
        }
        member.typing.push((target.clone(), now));
        let to = match &target {
            Target::User(name) => self.hub.online_by_name(name).map(|online| online.sessions.clone()),
            Target::Room(name) => self.hub.room_of(me.id, name).map(|room| room.sessions.clone()),
        };
        let mut to = to.unwrap_or_default();
        to.retain(|conn| self.hub.member(*conn).is_some_and(|member| member.person.id != me.id));
        self.ephemeral(&to, None, Line::event("typing").arg(&target).arg(&me.name));
    }

    /// The row of `/who`, with or without what somebody says about being away.
    fn presence(&self, person: &Person, last_seen: Timestamp, words: bool) -> Line {
        let row = Line::row("user").arg(&person.name);
        match self.hub.online(person.id) {
            Some(online) => {
                let text = online.away.as_ref().and_then(|text| text.as_deref()).filter(|_| words);
                row.arg(online.state()).key("since", online.since).maybe_text(text)
            }
            None => row.arg("offline").key("since", last_seen),
        }
    }

    /// `online` or `offline`.
    pub(super) fn whether_online(&self, person: &Person) -> &'static str {
        if self.hub.online(person.id).is_some() { "online" } else { "offline" }
    }

    pub(super) fn people_answered(&mut self, conn: ConnId, head: Head, wait: Wait, done: Done) {
        let Done::Query(answer) = done else { return self.misfit(conn, &head) };
        let Some(me) = self.hub.member(conn).map(|member| member.person.clone()) else { return };
        match (wait, answer) {
            // Hidden looks as empty does.
            (Wait::Profile(subject), Err(Refused::Forbidden)) => self.reply(conn, Line::ok(&head).key("user", subject)),
            (_, Err(refused)) => self.refuse(conn, &head, refused),
            (Wait::Profile(subject), Ok(Answer::Profile(profile))) => {
                let mut out = Vec::new();
                let parts = [("name", &profile.name), ("email", &profile.email), ("note", &profile.note)];
                for (key, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
                    Line::row("profile").arg(key).text(value).finish_into(&mut out);
                }
                if subject == me.name {
                    Line::row("profile").arg("show").text(profile.show.as_str()).finish_into(&mut out);
                }
                Line::ok(&head).key("user", subject).finish_into(&mut out);
                self.send(conn, out);
            }
            (Wait::Users, Ok(Answer::Users { rows, more })) => {
                let mut out = Vec::new();
                for person in &rows {
                    Line::row("user").arg(&person.name).arg(self.whether_online(person)).finish_into(&mut out);
                }
                Line::ok(&head).key("count", rows.len()).key("more", yes_no(more)).finish_into(&mut out);
                self.send(conn, out);
            }
            (Wait::Who, Ok(Answer::People(rows))) => {
                let Some((person, last_seen)) = rows.first() else {
                    return self.refuse(conn, &head, Refused::NoSuchUser);
                };
                let mut out = self.presence(person, *last_seen, true).finish();
                Line::ok(&head).key("count", 1).finish_into(&mut out);
                self.send(conn, out);
            }
            (Wait::Who, Ok(Answer::Members(rows))) => {
                let mut out = Vec::new();
                for row in &rows {
                    let words = out.len() < AWAY_TEXTS_MAX;
                    self.presence(&row.person, row.last_seen, words).finish_into(&mut out);
                }
                Line::ok(&head).key("count", rows.len()).finish_into(&mut out);
                self.send(conn, out);
            }
            (Wait::Watch(users), Ok(Answer::People(found))) => self.start_watching(conn, &head, users, &found),
            (Wait::Target(Target::User(_), _), Ok(Answer::People(found))) if found.is_empty() => {
                self.refuse(conn, &head, Refused::NoSuchUser);
            }
            (Wait::Target(target, purpose), Ok(Answer::People(_) | Answer::Topic(_))) => {
                self.found_target(conn, &head, &me, target, purpose);
            }
            _ => self.misfit(conn, &head),
        }
    }

    fn start_watching(&mut self, conn: ConnId, head: &Head, users: Vec<UserName>, found: &[(Person, Timestamp)]) {
        if let Some(missing) = users.iter().find(|name| !found.iter().any(|(person, _)| person.name == **name)) {
            return self.error(conn, head, Code::NoSuchUser, &format!("no account is called {missing}"));
        }
        let Some(member) = self.hub.member_mut(conn) else { return };
        let fresh = users.iter().filter(|name| !member.watching.contains(*name)).count();
        if member.watching.len() + fresh > WATCHED_MAX {
            return self.refuse(conn, head, Refused::Quota(WATCHED_MAX as u64));
        }
        member.watching.extend(users.iter().cloned());
        let count = member.watching.len();
        for name in users {
            self.hub.watch(conn, name);
        }
        self.reply(conn, Line::ok(head).key("watching", count));
    }
}
