//! To whom the next message of a room goes: computed from the roster and the contacts, and remembered until one of
//! the things that it was computed from is another.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::contact::{Contacts, Version};
use super::error::SealError;
use super::identity::Identity;
use super::name::{Address, User};
use super::roster_log::{Member, Roster};
use super::time::Now;

/// To whom the next message of a room goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// The devices.
    pub devices: Arc<BTreeSet<Address>>,
    /// Members whose identity in the roster differs from the pin: not sealed to, alarm.
    pub differing: Vec<User>,
    /// Members whose device list could not be had: not sealed to, shown.
    pub unlisted: Vec<User>,
}

/// An audience and all that it follows from.
#[derive(Debug)]
pub(crate) struct Known {
    audience: Audience,
    /// This device and its account's key.
    me: (Address, [u8; 32]),
    /// The members. Held here, so that a roster which changes them gets others.
    members: Arc<Vec<Member>>,
    contacts: Version,
    /// The seconds in which no certificate of a member begins or ends: the first, and the first after them.
    steady: (u64, u64),
}

impl Known {
    /// The current devices of every member by the newer of pinned and roster list, own other devices too.
    ///
    /// # Errors
    /// [`SealError::NotMember`]; [`SealError::NeedList`] for a member without a pin or with a newer list than the
    /// pinned, unless `no_list` says that it cannot be had.
    pub(crate) fn compute(
        me: &Identity,
        roster: &Roster,
        contacts: &Contacts,
        no_list: &[User],
        now: Now,
    ) -> Result<Self, SealError> {
        if roster.member(me.user(), me.aik()).is_none() {
            return Err(SealError::NotMember);
        }
        let (mut devices, mut audience) = (BTreeSet::new(), Audience::default());
        let mut steady = (0, u64::MAX);
        for member in roster.members() {
            let user = &member.user;
            match contacts.get(user) {
                Some(contact) if *contact.aik() != member.aik => audience.differing.push(user.clone()),
                Some(contact) if !contact.needs_list() && contact.list_version() >= member.list().version() => {
                    devices.extend(contact.current(now).map(|cert| cert.address().clone()));
                    steady = contact
                        .certs()
                        .iter()
                        .map(|cert| cert.steady(now))
                        .fold(steady, |whole, one| (whole.0.max(one.0), whole.1.min(one.1)));
                }
                _ if no_list.contains(user) => audience.unlisted.push(user.clone()),
                _ => return Err(SealError::NeedList(user.clone())),
            }
        }
        devices.remove(me.address());
        audience.devices = Arc::new(devices);
        let (me, contacts) = ((me.address().clone(), *me.aik()), contacts.version().clone());
        Ok(Self { audience, me, members: Arc::clone(roster.shared_members()), contacts, steady })
    }

    pub(crate) fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Whether computing it anew would come to the same. Of what that takes, the members and the contacts are the very
    /// ones, this device is the same, and no certificate has begun or ended. Which lists cannot be had has played no
    /// part if nobody was left out for it.
    pub(crate) fn holds(&self, me: &Identity, roster: &Roster, contacts: &Contacts, now: Now) -> bool {
        let (address, aik) = &self.me;
        let (from, until) = self.steady;
        self.audience.unlisted.is_empty()
            && Arc::ptr_eq(&self.members, roster.shared_members())
            && self.contacts == *contacts.version()
            && (address, aik) == (me.address(), me.aik())
            && (from..until).contains(&now.secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::cert::Certificate;
    use crate::e2e::device_list::DeviceList;
    use crate::e2e::dh::DhPair;
    use crate::e2e::name::{DeviceId, RoomName};
    use crate::e2e::roster::{Entry, Op};
    use crate::e2e::roster_log::Verdict;
    use crate::e2e::secret::Secret;
    use crate::e2e::sign::SignKey;
    use crate::e2e::testing::{Sample, Seeded, T0, alice, bob, contact_of};
    use crate::e2e::time::DAY;

    const NOW: Now = Now::from_secs(T0);

    /// Alice's closed room with Bob in it, and her contacts.
    fn room(a: &Sample, b: &Sample) -> (Roster, Contacts) {
        let name = RoomName::parse("#garden").unwrap();
        let create = Entry::create(&a.me, &name, false, &a.list, NOW, &mut Seeded(1)).unwrap();
        let roster = entry(&Roster::begin(&name, 1, &create).unwrap(), a, Op::Add, b);
        let contacts = [a, b].map(|of| (of.me.user().clone(), contact_of(of)));
        (roster, std::collections::BTreeMap::from(contacts).into())
    }

    fn entry(roster: &Roster, by: &Sample, op: Op, about: &Sample) -> Roster {
        let list = op.carries_list().then_some(&about.list);
        let entry = roster.propose(&by.me, op, (about.me.user(), about.me.aik()), list, NOW);
        let (next, verdict) = roster.append(roster.read() + 1, &entry).unwrap();
        assert!(matches!(verdict, Verdict::Accepted(_)));
        next
    }

    fn known(me: &Sample, roster: &Roster, contacts: &Contacts, now: Now) -> Known {
        let known = Known::compute(&me.me, roster, contacts, &[], now).unwrap();
        assert!(known.holds(&me.me, roster, contacts, now));
        known
    }

    #[test]
    fn it_holds_until_a_member_comes_or_goes() {
        let (a, b) = (alice(), bob());
        let (roster, contacts) = room(&a, &b);
        let first = known(&a, &roster, &contacts, NOW);
        assert_eq!(first.audience.devices.iter().collect::<Vec<_>>(), [b.me.address()]);
        assert!(first.holds(&a.me, &roster.clone(), &contacts.clone(), NOW));
        for op in [Op::Promote, Op::Remove] {
            let next = entry(&roster, &a, op, &b);
            assert!(!first.holds(&a.me, &next, &contacts, NOW), "{op:?}");
            assert!(first.holds(&a.me, &roster, &contacts, NOW));
        }
        let gone = entry(&roster, &a, Op::Remove, &b);
        assert!(known(&a, &gone, &contacts, NOW).audience.devices.is_empty());
        assert!(!first.holds(&b.me, &roster, &contacts, NOW), "for another device it is another one");
    }

    #[test]
    fn whoever_may_change_a_contact_ends_it() {
        let (a, b) = (alice(), bob());
        let (roster, mut contacts) = room(&a, &b);
        let first = known(&a, &roster, &contacts, NOW);
        let before = contacts.clone();
        // He speaks of a newer list than the one that is known.
        contacts.get_mut(b.me.user()).unwrap().claim(2);
        assert!(!first.holds(&a.me, &roster, &contacts, NOW) && first.holds(&a.me, &roster, &before, NOW));
        let lacks = Known::compute(&a.me, &roster, &contacts, &[], NOW).unwrap_err();
        assert_eq!(lacks, SealError::NeedList(b.me.user().clone()));
        // His list names another device too.
        let key = |i: u8| Secret::copy_from(&[i; 32]);
        let address = Address { device: DeviceId([9; 16]), ..b.me.address().clone() };
        let (dsk, dik) = (SignKey::from_seed(&key(3)).public(), *DhPair::from_private(key(4)).public());
        let cert = Certificate::issue(&b.aik, &address, &dsk, &dik, T0, T0 + DAY).unwrap();
        let hashes = [b.me.cert().hash(), cert.hash()];
        let list = DeviceList::issue(&b.aik, b.me.user(), Some(&b.list), &hashes).unwrap();
        let (learnt, _) = contact_of(&b).learn(list.bytes(), &[b.me.cert().bytes(), cert.bytes()]).unwrap();
        let second = known(&a, &roster, &before, NOW);
        contacts.insert(b.me.user().clone(), learnt);
        assert!(!second.holds(&a.me, &roster, &contacts, NOW));
        let third = known(&a, &roster, &contacts, NOW);
        assert_eq!(third.audience.devices.len(), 2);
        // That device's certificate ends first.
        let (last, over) = (Now::from_secs(T0 + DAY - 1), Now::from_secs(T0 + DAY));
        assert!(third.holds(&a.me, &roster, &contacts, last) && !third.holds(&a.me, &roster, &contacts, over));
        assert_eq!(known(&a, &roster, &contacts, over).audience.devices.len(), 1);
        // None of them begins before a day before the first second.
        let (first, early) = (Now::from_secs(T0 - DAY), Now::from_secs(T0 - DAY - 1));
        assert!(third.holds(&a.me, &roster, &contacts, first) && !third.holds(&a.me, &roster, &contacts, early));
        assert!(known(&a, &roster, &contacts, early).audience.devices.is_empty());
    }

    #[test]
    fn who_was_left_out_is_looked_for_anew() {
        let (a, b) = (alice(), bob());
        let (roster, mut contacts) = room(&a, &b);
        contacts.remove(b.me.user());
        let without = Known::compute(&a.me, &roster, &contacts, &[b.me.user().clone()], NOW).unwrap();
        assert_eq!(without.audience.unlisted, [b.me.user().clone()]);
        assert!(!without.holds(&a.me, &roster, &contacts, NOW));
    }
}
