//! `/admin`: for accounts that the operator has marked so.

use std::net::IpAddr;

use super::people::ROWS_MAX;
use super::{Core, Wait as AnyWait, yes_no};
use crate::hub::effects::{Effect, Gauges};
use crate::ops::{AddressBlock, Answer, Done, Op, Outcome, Password, Person, Query, Refused, Sha256, Totals};
use crate::protocol::request::{Admin, ParseError};
use crate::protocol::{Head, Line, UserName};
use crate::session::ConnId;

/// What an administrator's command waits for.
#[derive(Debug)]
pub(super) enum Wait {
    Users,
    Kick(Option<String>),
    Notice(String),
    BanAccount(bool),
    BanAddress(AddressBlock, bool),
    /// The code, shown once it is stored.
    Invite(Password),
    Totals,
    Gauges(Totals),
}

impl From<Wait> for AnyWait {
    fn from(wait: Wait) -> AnyWait {
        AnyWait::Admin(wait)
    }
}

impl AddressBlock {
    /// Reads `ADDRESS` or `ADDRESS/BITS`; host bits are cleared.
    pub fn parse(text: &str) -> Option<AddressBlock> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let address = address.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = bits.map_or(Some(most), |bits| bits.parse().ok()).filter(|&bits| bits <= most)?;
        Some(AddressBlock { address: masked(address, prefix), prefix })
    }

    /// Whether an address lies in the block.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

impl std::fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => IpAddr::from((v4.to_bits() & u32::MAX.checked_shl(32 - prefix).unwrap_or(0)).to_be_bytes()),
        IpAddr::V6(v6) => IpAddr::from((v6.to_bits() & u128::MAX.checked_shl(128 - prefix).unwrap_or(0)).to_be_bytes()),
    }
}

impl Core {
    pub(super) fn admin(&mut self, conn: ConnId, head: Head, me: &Person, request: Admin<'_>) {
        match request {
            Admin::Users { glob, after } => {
                let query = Query::Accounts { glob: glob.map(Into::into), after, limit: ROWS_MAX };
                self.ask(conn, head, Wait::Users, query);
            }
            Admin::Sessions { user } => self.list_sessions(conn, &head, user.as_ref()),
            Admin::Kick { user, reason } => {
                let wait = Wait::Kick(reason.map(str::to_owned));
                self.ask(conn, head, wait, Query::People(vec![user]));
            }
            Admin::Ban { whom } => self.ban(conn, head, &whom, true),
            Admin::Unban { whom } => self.ban(conn, head, &whom, false),
            Admin::Invite => match self.random_text::<16>() {
                Ok(code) => {
                    let op = Op::AddInvite { code: Sha256::of(code.0.as_bytes()) };
                    self.persist(conn, head, Wait::Invite(code), op);
                }
                Err(_) => self.refuse(conn, &head, Refused::Internal),
            },
            Admin::Notice { to: Some(user), text } => {
                self.ask(conn, head, Wait::Notice(text.to_owned()), Query::People(vec![user]));
            }
            Admin::Notice { to: None, text } => {
                log::info!("connection {conn}: {} sent a notice to everybody", me.name);
                let to: Vec<ConnId> =
                    self.hub.sessions().filter(|session| session.is_ready()).map(|session| session.conn).collect();
                self.reply(conn, Line::ok(&head).key("sessions", to.len()));
                self.event(&to, None, Line::event("notice").text(text));
            }
            Admin::Stats => self.ask(conn, head, Wait::Totals, Query::Totals),
            Admin::Shutdown => {
                log::warn!("connection {conn}: {} shuts the server down", me.name);
                self.ok(conn, &head);
                self.out.push(Effect::ShutDown);
            }
        }
    }

    fn list_sessions(&mut self, conn: ConnId, head: &Head, user: Option<&UserName>) {
        let mut out = Vec::new();
        let mut count = 0;
        for session in self.hub.sessions() {
            let Some(member) = session.member() else { continue };
            if user.is_some_and(|user| *user != member.person.name) {
                continue;
            }
            count += 1;
            if count <= ROWS_MAX {
                Line::row("session")
                    .arg(&member.person.name)
                    .arg(session.peer.address)
                    .key("since", member.since)
                    .key("tls", session.peer.tls)
                    .key("conn", session.conn)
                    .finish_into(&mut out);
            }
        }
        let shown = count.min(ROWS_MAX);
        Line::ok(head).key("count", shown).key("more", yes_no(count > shown)).finish_into(&mut out);
        self.send(conn, out);
    }

    fn ban(&mut self, conn: ConnId, head: Head, whom: &str, banned: bool) {
        if let Some(block) = AddressBlock::parse(whom) {
            return self.persist(conn, head, Wait::BanAddress(block, banned), Op::BanAddress { block, banned });
        }
        match UserName::parse(whom) {
            Ok(subject) => {
                self.persist(conn, head, Wait::BanAccount(banned), Op::BanAccount { subject, banned });
            }
            Err(error) => self.reply(conn, super::fault(&head, &ParseError::Name(error))),
        }
    }

    pub(super) fn admin_answered(&mut self, conn: ConnId, head: Head, wait: Wait, done: Done) {
        match (wait, done) {
            (_, Done::Op(Err(refused)) | Done::Query(Err(refused))) => self.refuse(conn, &head, refused),
            (Wait::Users, Done::Query(Ok(Answer::Accounts { rows, more }))) => {
                let mut out = Vec::new();
                for row in &rows {
                    Line::row("user")
                        .arg(&row.person.name)
                        .arg(self.whether_online(&row.person))
                        .key("admin", yes_no(row.admin))
                        .key("banned", yes_no(row.banned))
                        .key("disabled", yes_no(row.disabled))
                        .key("created", row.created)
                        .key("seen", row.last_seen)
                        .finish_into(&mut out);
                }
                Line::ok(&head).key("count", rows.len()).key("more", yes_no(more)).finish_into(&mut out);
                self.send(conn, out);
            }
            (Wait::Kick(reason), Done::Query(Ok(Answer::People(found)))) => match found.first() {
                None => self.refuse(conn, &head, Refused::NoSuchUser),
                Some((person, _)) => {
                    log::warn!("connection {conn}: kicks {}", person.name);
                    let sessions = self.hub.sessions_of(person.id).len();
                    self.reply(conn, Line::ok(&head).key("user", &person.name).key("sessions", sessions));
                    self.end_sessions(person.id, None, "kicked", reason.as_deref());
                }
            },
            (Wait::Notice(text), Done::Query(Ok(Answer::People(found)))) => match found.first() {
                None => self.refuse(conn, &head, Refused::NoSuchUser),
                Some((person, _)) => {
                    let to = self.hub.sessions_of(person.id);
                    self.reply(conn, Line::ok(&head).key("sessions", to.len()));
                    self.event(&to, None, Line::event("notice").text(&text));
                }
            },
            (Wait::BanAccount(banned), Done::Op(Ok(Outcome::Account(person)))) => {
                log::warn!("connection {conn}: {} {}", if banned { "bans" } else { "lifts the ban of" }, person.name);
                self.reply(conn, Line::ok(&head).key("user", &person.name));
                if banned {
                    self.end_sessions(person.id, None, "kicked", Some("banned"));
                }
            }
            (Wait::BanAddress(block, banned), Done::Op(Ok(_))) => self.blocked(conn, &head, block, banned),
            (Wait::Invite(code), Done::Op(Ok(_))) => {
                self.reply(conn, Line::ok(&head).key("invite", code.0.as_str()));
            }
            (Wait::Totals, Done::Query(Ok(Answer::Totals(totals)))) => {
                let ticket = self.suspend(conn, head, Wait::Gauges(totals).into());
                self.out.push(Effect::Measure(ticket));
            }
            _ => self.misfit(conn, &head),
        }
    }

    fn blocked(&mut self, conn: ConnId, head: &Head, block: AddressBlock, banned: bool) {
        log::warn!("connection {conn}: {} {block}", if banned { "bans" } else { "lifts the ban of" });
        if banned {
            self.blocks.insert(block);
        } else {
            self.blocks.remove(&block);
        }
        self.out.push(Effect::Blocked(self.blocks.iter().copied().collect()));
        self.reply(conn, Line::ok(head).key("address", block));
        if banned {
            let inside = self.hub.sessions().filter(|session| block.contains(session.peer.address));
            let inside: Vec<ConnId> = inside.map(|session| session.conn).collect();
            // The session that banned its own address stays, so that it can take that back.
            for other in inside.into_iter().filter(|&other| other != conn) {
                self.bye(other, "kicked", Some("banned"));
            }
        }
    }

    pub(super) fn stats(&mut self, conn: ConnId, head: &Head, totals: &Totals, gauges: &Gauges) {
        let sessions = self.hub.sessions().filter(|session| session.is_ready()).count();
        let batch = gauges.committed.checked_div(gauges.commits).unwrap_or(0);
        let rows: [(&str, u64); 24] = [
            ("uptime-seconds", gauges.uptime.as_secs()),
            ("connections", gauges.connections),
            ("sessions", sessions as u64),
            ("accounts-online", self.hub.online_count() as u64),
            ("accounts", totals.accounts),
            ("rooms-active", self.hub.active_rooms() as u64),
            ("rooms", totals.rooms),
            ("messages", totals.messages),
            ("messages-stored", self.counts.stored),
            ("messages-delivered", self.counts.delivered),
            ("logins", self.counts.logins),
            ("logins-failed", self.counts.failed_logins),
            ("commits", gauges.commits),
            ("commit-writes", gauges.committed),
            ("commit-batch-mean", batch),
            ("commit-batch-largest", gauges.largest_batch),
            ("queue-writes", gauges.write_queue),
            ("queue-reads", gauges.read_queue),
            ("queue-passwords", self.hashing as u64),
            ("memory-bytes", gauges.memory),
            ("database-bytes", totals.database_bytes),
            ("files", totals.files),
            ("file-bytes", totals.file_bytes),
            ("address-bans", self.blocks.len() as u64),
        ];
        let mut out = Vec::new();
        for (name, value) in rows {
            Line::row("stat").arg(name).arg(value).finish_into(&mut out);
        }
        Line::ok(head).key("count", rows.len()).finish_into(&mut out);
        self.send(conn, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_addresses() {
        let block = |text| AddressBlock::parse(text).unwrap();
        assert_eq!(block("192.0.2.7").to_string(), "192.0.2.7/32");
        assert_eq!(block("192.0.2.7/24").to_string(), "192.0.2.0/24");
        assert_eq!(block("2001:db8::7/64").to_string(), "2001:db8::/64");
        assert_eq!(block("::ffff:192.0.2.7"), block("192.0.2.7"));
        assert!(block("0.0.0.0/0").contains("203.0.113.9".parse().unwrap()));
        assert!(block("192.0.2.0/24").contains("::ffff:192.0.2.9".parse().unwrap()));
        assert!(!block("192.0.2.0/24").contains("192.0.3.9".parse().unwrap()));
        for bad in ["bob", "192.0.2", "192.0.2.7/33", "192.0.2.7/", "::1/129"] {
            assert_eq!(AddressBlock::parse(bad), None, "{bad}");
        }
    }
}
