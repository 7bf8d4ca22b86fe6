//! The key directory: public keys of devices, handed out unread.

use base64ct::{Base64, Encoding as _};

use super::dispatch::over_rate;
use super::{Core, Wait as AnyWait};
use crate::hub::throttle::BUNDLES_MAX;
use crate::ops::{AccountId, Answer, Bundles, Done, Op, Outcome, Person, Pools, Query, Refused};
use crate::protocol::{Code, DeviceName, Head, KeyUpload, Line, UserName};
use crate::session::ConnId;

/// What a command about keys waits for.
#[derive(Debug)]
pub(super) enum Wait {
    /// A record on its way to the disk, and whose.
    Put(AccountId),
    /// Bundles, counted for this account until they are there.
    Take(AccountId, UserName),
    Certificates,
    Status,
}

impl From<Wait> for AnyWait {
    fn from(wait: Wait) -> AnyWait {
        AnyWait::Keys(wait)
    }
}

impl Core {
    pub(super) fn keys_put(&mut self, conn: ConnId, head: Head, me: &Person, upload: KeyUpload) {
        if let Err(reply) = self.take_exchanges(&head, me, upload.record.body_len()) {
            return self.reply(conn, reply);
        }
        let KeyUpload { device, record } = upload;
        self.persist(conn, head, Wait::Put(me.id), Op::PutKeys { account: me.id, device, record });
    }

    pub(super) fn keys_get(
        &mut self,
        conn: ConnId,
        head: Head,
        me: &Person,
        subject: UserName,
        device: Option<DeviceName>,
        only_certificates: bool,
    ) {
        if let Err(reply) = self.take_exchanges(&head, me, 0) {
            return self.reply(conn, reply);
        }
        if only_certificates {
            return self.ask(conn, head, Wait::Certificates, Query::DeviceCertificates { subject, device });
        }
        match self.throttle.bundle(me.id, &subject, self.now.monotonic) {
            Err(wait) => {
                let text = format!("at most {BUNDLES_MAX} bundles of one account an hour");
                self.reply(conn, over_rate(&head, wait, &text));
            }
            Ok(()) => {
                let wait = Wait::Take(me.id, subject.clone());
                self.persist(conn, head, wait, Op::TakeBundles { subject, device });
            }
        }
    }

    pub(super) fn keys_answered(&mut self, conn: ConnId, head: Head, wait: Wait, done: Done) {
        match (wait, done) {
            (Wait::Put(account), Done::Op(Ok(Outcome::Pools(pools)))) => {
                if let Some(online) = self.hub.online_mut(account) {
                    online.refilled(pools.device);
                }
                let line = Line::ok(&head).key("device", pools.device);
                self.reply(conn, line.key("opk", pools.dh).key("pqk", pools.post_quantum));
            }
            (Wait::Put(_), Done::Op(Err(Refused::Quota(max)))) => {
                let line = Line::err(&head, Code::Quota).key("max", max);
                self.reply(conn, line.text("that would be too many devices; let one be forgotten first"));
            }
            (Wait::Put(_), Done::Op(Err(Refused::NotFound))) => {
                self.error(conn, &head, Code::NotFound, "put the certificate of that device first");
            }
            (Wait::Take(requester, subject), Done::Op(result)) => match result {
                Ok(Outcome::Bundles(bundles)) => self.bundles(conn, &head, requester, &bundles),
                Ok(_) => self.misfit(conn, &head),
                Err(refused) => {
                    self.throttle.no_bundle(requester, &subject);
                    self.no_keys(conn, &head, refused);
                }
            },
            (Wait::Certificates, Done::Query(Err(refused))) => self.no_keys(conn, &head, refused),
            (_, Done::Op(Err(refused)) | Done::Query(Err(refused))) => self.refuse(conn, &head, refused),
            (Wait::Certificates, Done::Query(Ok(Answer::DeviceCertificates(found)))) => {
                let name = &found.person.name;
                self.devices(conn, &head, name, found.list.as_deref(), "cert", &found.certificates);
            }
            (Wait::Status, Done::Query(Ok(Answer::Pools(rows)))) => {
                let mut out = Vec::new();
                for row in &rows {
                    let line = Line::row("keys-status").arg(row.device);
                    line.key("opk", row.dh).key("pqk", row.post_quantum).finish_into(&mut out);
                }
                Line::ok(&head).key("devices", rows.len()).finish_into(&mut out);
                self.send(conn, out);
            }
            _ => self.misfit(conn, &head),
        }
    }

    fn no_keys(&mut self, conn: ConnId, head: &Head, refused: Refused) {
        match refused {
            Refused::NotFound => self.error(conn, head, Code::NotFound, "they have no such device"),
            refused => self.refuse(conn, head, refused),
        }
    }

    /// The reply to a fetch; whose keys they are hears where they run out.
    fn bundles(&mut self, conn: ConnId, head: &Head, requester: AccountId, taken: &Bundles) {
        let person = &taken.person;
        if taken.bundles.is_empty() {
            self.throttle.no_bundle(requester, &person.name);
        }
        self.devices(conn, head, &person.name, taken.list.as_deref(), "keys", &taken.bundles);
        for &pools in &taken.left {
            let Some(online) = self.hub.online_mut(person.id) else { return };
            if online.should_tell(pools) {
                let sessions = online.sessions.clone();
                let Pools { device, dh, post_quantum } = pools;
                let line = Line::event("keys-low").key("device", device).key("opk", dh).key("pqk", post_quantum);
                self.event(&sessions, None, line);
            }
        }
    }

    /// The device list, a row for each device, and the reply.
    fn devices(
        &mut self,
        conn: ConnId,
        head: &Head,
        user: &UserName,
        list: Option<&[u8]>,
        kind: &str,
        rows: &[(DeviceName, Vec<u8>)],
    ) {
        let mut out = Vec::new();
        if let Some(list) = list {
            Line::row("devices").arg(user).arg(Base64::encode_string(list)).finish_into(&mut out);
        }
        for (device, bytes) in rows {
            Line::row(kind).arg(user).arg(device).arg(Base64::encode_string(bytes)).finish_into(&mut out);
        }
        Line::ok(head).key("user", user).key("devices", rows.len()).finish_into(&mut out);
        self.send(conn, out);
    }
}
