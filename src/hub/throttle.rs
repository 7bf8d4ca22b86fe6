//! Rates: how often somebody may try, counted so that the counting itself stays small.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::ops::AccountId;
use crate::protocol::UserName;

/// Entries that one table of tries may hold. A flood from more networks than this within a window only
/// forgets tries of others, each of which had its own limit.
const TABLE_MAX: usize = 65_536;

/// An address as far as it tells people apart: an IPv6 host has a whole /64 to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address.
    pub fn of(address: IpAddr) -> Network {
        match address {
            IpAddr::V4(_) => Network(address),
            IpAddr::V6(v6) => Network(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into()),
        }
    }
}

/// A bucket that fills at a steady rate and may be overdrawn by one list of targets.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn full(burst: u32, now: Instant) -> Bucket {
        Bucket { level: f64::from(burst), at: now }
    }

    /// Takes `count` out, if as many are in it as it can hold of them; so that a list longer than the
    /// burst passes, and is paid for afterwards.
    ///
    /// # Errors
    /// How long until it would pass.
    pub fn take(&mut self, count: usize, per_second: u32, burst: u32, now: Instant) -> Result<(), Duration> {
        if per_second == 0 {
            return Ok(());
        }
        let (rate, most) = (f64::from(per_second), f64::from(burst.max(1)));
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + elapsed * rate).min(most);
        self.at = now;
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let needed = count.min(most);
        if self.level + 1e-9 < needed {
            return Err(Duration::from_secs_f64((needed - self.level) / rate));
        }
        self.level -= count;
        Ok(())
    }

    /// Whether nothing of it is used up any more.
    pub fn is_full(&self, per_second: u32, burst: u32, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        per_second == 0 || self.level + elapsed * f64::from(per_second) >= f64::from(burst.max(1))
    }
}

#[derive(Debug, Clone, Copy)]
struct Window {
    ends: Instant,
    count: u32,
}

/// Why a try may not be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Too many failed; this long until the next is allowed.
    Until(Duration),
    /// Too many would have failed if all those under way did: the end of one of them decides.
    Undecided,
}

/// A login under way, to be given back to [`Throttle::decided`] whatever becomes of it.
#[derive(Debug)]
#[must_use]
pub struct Try {
    /// Whose account it is for.
    pub user: UserName,
    from: Network,
    /// It came from where only the network's limit holds.
    known: bool,
}

/// How a login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The proof held.
    Held,
    /// It did not.
    Failed,
    /// It was not looked at.
    Undone,
}

/// Tries in windows of a fixed length: the first opens one, those beyond the limit are refused until it
/// ends and do not prolong it.
#[derive(Debug)]
pub struct Tries<K> {
    windows: HashMap<K, Window>,
    /// Those counted of which the end is not known; no more than there are connections.
    under_way: HashMap<K, u32>,
    length: Duration,
}

impl<K: Hash + Eq + Clone> Tries<K> {
    /// Counts in windows of this length.
    pub fn new(length: Duration) -> Tries<K> {
        Tries { windows: HashMap::new(), under_way: HashMap::new(), length }
    }

    /// How long until a try of `key` is allowed, if it is not now. A limit of 0 is none.
    pub fn wait(&self, key: &K, limit: u32, now: Instant) -> Option<Duration> {
        let window = self.windows.get(key)?;
        let left = window.ends.saturating_duration_since(now);
        (limit > 0 && window.count >= limit && !left.is_zero()).then_some(left)
    }

    /// Counts a try.
    pub fn count(&mut self, key: K, now: Instant) {
        if self.windows.len() >= TABLE_MAX && !self.windows.contains_key(&key) {
            self.windows.retain(|_, window| window.ends > now);
            if self.windows.len() >= TABLE_MAX
                && let Some(victim) = self.windows.keys().next().cloned()
            {
                self.windows.remove(&victim);
            }
        }
        let fresh = Window { ends: now + self.length, count: 0 };
        let window = self.windows.entry(key).or_insert(fresh);
        if window.ends <= now {
            *window = fresh;
        }
        window.count += 1;
    }

    /// Whether a try of `key` must wait, and for what.
    fn hold(&self, key: &K, limit: u32, now: Instant) -> Option<Hold> {
        let wait = self.wait(key, limit, now)?;
        let under_way = self.under_way.get(key).copied().unwrap_or(0);
        let failed = self.windows.get(key).map_or(0, |window| window.count.saturating_sub(under_way));
        Some(if under_way > 0 && failed < limit { Hold::Undecided } else { Hold::Until(wait) })
    }

    /// Counts a try that is under way.
    fn begin(&mut self, key: K, now: Instant) {
        *self.under_way.entry(key.clone()).or_default() += 1;
        self.count(key, now);
    }

    /// A try is not under way any more; `forgiven` takes it back.
    fn end(&mut self, key: &K, forgiven: bool) {
        if let Some(count) = self.under_way.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.under_way.remove(key);
            }
        }
        if forgiven {
            self.forgive(key);
        }
    }

    /// Takes a try back, because it was none.
    pub fn forgive(&mut self, key: &K) {
        if let Some(window) = self.windows.get_mut(key) {
            window.count = window.count.saturating_sub(1);
            if window.count == 0 {
                self.windows.remove(key);
            }
        }
    }
}

/// Failed logins, registrations, and bundles taken out of the key directory.
#[derive(Debug)]
pub struct Throttle {
    by_network: Tries<Network>,
    by_account: Tries<UserName>,
    registrations: Tries<Network>,
    bundles: Tries<(AccountId, UserName)>,
    /// From where accounts logged in before: there, only the network's limit holds, so that a stranger's
    /// guesses do not keep the owner out.
    known: HashSet<(UserName, Network)>,
}

/// The window of failed logins: nobody is kept out of an account for longer.
const LOGIN_WINDOW: Duration = Duration::from_secs(60);
/// The window of registrations.
const REGISTRATION_WINDOW: Duration = Duration::from_secs(3600);
/// The window of bundles.
const BUNDLE_WINDOW: Duration = Duration::from_secs(3600);
/// Bundles of one account that another may take within `BUNDLE_WINDOW`. Each uses up one-time keys of every
/// device of theirs. A client needs one for each new device, and again when a session broke; ten an hour let
/// it recover, and leave a pool of 100 to others for hours.
pub const BUNDLES_MAX: u32 = 10;

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle {
            by_network: Tries::new(LOGIN_WINDOW),
            by_account: Tries::new(LOGIN_WINDOW),
            registrations: Tries::new(REGISTRATION_WINDOW),
            bundles: Tries::new(BUNDLE_WINDOW),
            known: HashSet::new(),
        }
    }
}

impl Throttle {
    /// Begins a login. Until [`Throttle::decided`] it counts as if it failed, so that guesses side by side
    /// are no more than guesses one after the other; but nobody is refused for what may still succeed.
    ///
    /// # Errors
    /// What it has to wait for.
    pub fn login(&mut self, user: &UserName, from: Network, limit: u32, now: Instant) -> Result<Try, Hold> {
        let known = self.known.contains(&(user.clone(), from));
        let holds = [
            self.by_network.hold(&from, limit, now),
            if known { None } else { self.by_account.hold(user, limit, now) },
        ];
        let until = holds.iter().flatten().find(|hold| matches!(hold, Hold::Until(_)));
        if let Some(hold) = until.or(holds.iter().flatten().next()) {
            return Err(*hold);
        }
        self.by_network.begin(from, now);
        if !known {
            self.by_account.begin(user.clone(), now);
        }
        Ok(Try { user: user.clone(), from, known })
    }

    /// A login has ended.
    pub fn decided(&mut self, login: Try, ended: Ended) {
        let Try { user, from, known } = login;
        let forgiven = ended != Ended::Failed;
        self.by_network.end(&from, forgiven);
        if !known {
            self.by_account.end(&user, forgiven);
        }
        if ended == Ended::Held {
            if self.known.len() >= TABLE_MAX {
                self.known.clear();
            }
            self.known.insert((user, from));
        }
    }

    /// Counts a password asked for again as failed until [`Throttle::proof_held`].
    ///
    /// # Errors
    /// How long until a try is allowed.
    pub fn proof(&mut self, user: &UserName, from: Network, limit: u32, now: Instant) -> Result<(), Duration> {
        match self.login(user, from, limit, now) {
            Ok(login) => {
                self.decided(login, Ended::Failed);
                Ok(())
            }
            Err(Hold::Until(wait)) => Err(wait),
            Err(Hold::Undecided) => Err(Duration::from_secs(1)),
        }
    }

    /// It was the right one, or was not looked at.
    pub fn proof_held(&mut self, user: &UserName, from: Network) {
        self.by_network.forgive(&from);
        if !self.known.contains(&(user.clone(), from)) {
            self.by_account.forgive(user);
        }
    }

    /// Counts a registration until [`Throttle::not_registered`] takes it back.
    ///
    /// # Errors
    /// How long until one is allowed.
    pub fn registration(&mut self, from: Network, limit: u32, now: Instant) -> Result<(), Duration> {
        if let Some(wait) = self.registrations.wait(&from, limit, now) {
            return Err(wait);
        }
        self.registrations.count(from, now);
        Ok(())
    }

    /// Counts a bundle of `target` for `requester` until [`Throttle::no_bundle`] takes it back.
    ///
    /// # Errors
    /// How long until one is allowed.
    pub fn bundle(&mut self, requester: AccountId, target: &UserName, now: Instant) -> Result<(), Duration> {
        let pair = (requester, target.clone());
        if let Some(wait) = self.bundles.wait(&pair, BUNDLES_MAX, now) {
            return Err(wait);
        }
        self.bundles.count(pair, now);
        Ok(())
    }

    /// Nothing was there to be taken. So only accounts that have keys fill the table, and nobody can push
    /// out what was counted by asking for names that do not exist.
    pub fn no_bundle(&mut self, requester: AccountId, target: &UserName) {
        self.bundles.forgive(&(requester, target.clone()));
    }

    /// No account came of it.
    pub fn not_registered(&mut self, from: Network) {
        self.registrations.forgive(&from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_bucket_passes_its_burst_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(3, start);
        for _ in 0..3 {
            assert!(bucket.take(1, 2, 3, start).is_ok());
        }
        assert_eq!(bucket.take(1, 2, 3, start), Err(Duration::from_millis(500)));
        assert!(bucket.take(1, 2, 3, start + Duration::from_millis(500)).is_ok());
        assert!(!bucket.is_full(2, 3, start + Duration::from_millis(500)));
        assert!(bucket.is_full(2, 3, start + second(2)));
        assert!(bucket.take(1, 0, 3, start).is_ok(), "a rate of 0 is none");
    }

    #[test]
    fn a_long_list_is_paid_for_afterwards() {
        let start = Instant::now();
        let mut bucket = Bucket::full(30, start);
        assert!(bucket.take(100, 10, 30, start).is_ok());
        assert!(bucket.take(1, 10, 30, start + second(7)).is_err());
        assert!(bucket.take(1, 10, 30, start + Duration::from_millis(7200)).is_ok());
    }

    #[test]
    fn guesses_lock_for_a_minute_at_most_and_not_the_owner() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let alice = UserName::parse("alice").unwrap();
        let net = |n: u8| Network::of(IpAddr::from([192, 0, 2, n]));
        let mut fails = |user: &UserName, n, limit, at| {
            let login = throttle.login(user, net(n), limit, at)?;
            throttle.decided(login, if n == 9 { Ended::Held } else { Ended::Failed });
            Ok(())
        };
        fails(&alice, 9, 2, start).unwrap();
        fails(&alice, 1, 2, start).unwrap();
        fails(&alice, 2, 2, start).unwrap();
        assert_eq!(fails(&alice, 3, 2, start + second(10)), Err(Hold::Until(second(50))), "by account");
        assert!(fails(&alice, 9, 2, start + second(10)).is_ok(), "from where the owner was before");
        assert!(fails(&alice, 3, 2, start + second(60)).is_ok());
        let bob = UserName::parse("bob").unwrap();
        fails(&bob, 5, 2, start).unwrap();
        fails(&alice, 5, 0, start).unwrap();
        assert!(fails(&bob, 5, 2, start).is_err(), "by address, whoever is tried");
    }

    #[test]
    fn logins_side_by_side_wait_for_each_other() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let alice = UserName::parse("alice").unwrap();
        let net = Network::of(IpAddr::from([192, 0, 2, 1]));
        let first = throttle.login(&alice, net, 2, start).unwrap();
        let second = throttle.login(&alice, net, 2, start).unwrap();
        assert_eq!(throttle.login(&alice, net, 2, start).unwrap_err(), Hold::Undecided);
        throttle.decided(first, Ended::Held);
        let third = throttle.login(&alice, net, 2, start).unwrap();
        throttle.decided(second, Ended::Failed);
        assert_eq!(throttle.login(&alice, net, 2, start).unwrap_err(), Hold::Undecided);
        throttle.decided(third, Ended::Failed);
        assert!(matches!(throttle.login(&alice, net, 2, start), Err(Hold::Until(_))));
        assert!(throttle.by_network.under_way.is_empty() && throttle.by_account.under_way.is_empty());
    }

    #[test]
    fn bundles_are_counted_by_who_asks_and_whom() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let (alice, bob) = (UserName::parse("alice").unwrap(), UserName::parse("bob").unwrap());
        for n in 0..BUNDLES_MAX {
            assert!(throttle.bundle(AccountId(1), &bob, start + second(u64::from(n))).is_ok());
        }
        assert_eq!(throttle.bundle(AccountId(1), &bob, start + second(100)), Err(second(3500)));
        assert!(throttle.bundle(AccountId(1), &alice, start).is_ok());
        assert!(throttle.bundle(AccountId(2), &bob, start).is_ok());
        throttle.no_bundle(AccountId(1), &bob);
        assert!(throttle.bundle(AccountId(1), &bob, start).is_ok());
        assert!(throttle.bundle(AccountId(1), &bob, start).is_err());
        assert!(throttle.bundle(AccountId(1), &bob, start + second(3600)).is_ok());
        throttle.no_bundle(AccountId(2), &bob);
        throttle.no_bundle(AccountId(1), &alice);
        assert_eq!(throttle.bundles.windows.len(), 1, "what was taken back leaves nothing");
    }

    #[test]
    fn an_ipv6_host_is_its_64() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
    }

    #[test]
    fn the_table_does_not_grow_without_bound() {
        let start = Instant::now();
        let mut tries = Tries::new(second(60));
        for n in 0..TABLE_MAX + 1000 {
            tries.count(n, start);
        }
        assert_eq!(tries.windows.len(), TABLE_MAX);
    }
}
