//! Rates: how often somebody may try, counted so that the counting itself stays small.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

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
}

#[derive(Debug, Clone, Copy)]
struct Window {
    ends: Instant,
    count: u32,
}

/// Tries in windows of a fixed length: the first opens one, those beyond the limit are refused until it
/// ends and do not prolong it.
#[derive(Debug)]
pub struct Tries<K> {
    windows: HashMap<K, Window>,
    length: Duration,
}

impl<K: Hash + Eq + Clone> Tries<K> {
    /// Counts in windows of this length.
    pub fn new(length: Duration) -> Tries<K> {
        Tries { windows: HashMap::new(), length }
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

/// Failed logins and registrations.
#[derive(Debug)]
pub struct Throttle {
    by_network: Tries<Network>,
    by_account: Tries<UserName>,
    registrations: Tries<Network>,
    /// From where accounts logged in before: there, only the network's limit holds, so that a stranger's
    /// guesses do not keep the owner out.
    known: HashSet<(UserName, Network)>,
}

/// The window of failed logins: nobody is kept out of an account for longer.
const LOGIN_WINDOW: Duration = Duration::from_secs(60);
/// The window of registrations.
const REGISTRATION_WINDOW: Duration = Duration::from_secs(3600);

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle {
            by_network: Tries::new(LOGIN_WINDOW),
            by_account: Tries::new(LOGIN_WINDOW),
            registrations: Tries::new(REGISTRATION_WINDOW),
            known: HashSet::new(),
        }
    }
}

impl Throttle {
    /// Counts a login as failed until [`Throttle::login_held`] takes it back.
    ///
    /// # Errors
    /// How long until a try is allowed.
    pub fn login(&mut self, user: &UserName, from: Network, limit: u32, now: Instant) -> Result<(), Duration> {
        if let Some(wait) = self.by_network.wait(&from, limit, now) {
            return Err(wait);
        }
        let known = self.known.contains(&(user.clone(), from));
        if !known && let Some(wait) = self.by_account.wait(user, limit, now) {
            return Err(wait);
        }
        self.by_network.count(from, now);
        if !known {
            self.by_account.count(user.clone(), now);
        }
        Ok(())
    }

    /// The login succeeded, or was not decided.
    pub fn login_held(&mut self, user: &UserName, from: Network, succeeded: bool) {
        self.by_network.forgive(&from);
        let pair = (user.clone(), from);
        if !self.known.contains(&pair) {
            self.by_account.forgive(user);
            if succeeded {
                if self.known.len() >= TABLE_MAX {
                    self.known.clear();
                }
                self.known.insert(pair);
            }
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
        throttle.login(&alice, net(9), 2, start).unwrap();
        throttle.login_held(&alice, net(9), true);
        throttle.login(&alice, net(1), 2, start).unwrap();
        throttle.login(&alice, net(2), 2, start).unwrap();
        assert_eq!(throttle.login(&alice, net(3), 2, start + second(10)), Err(second(50)), "by account");
        assert!(throttle.login(&alice, net(9), 2, start + second(10)).is_ok(), "from where the owner was before");
        assert!(throttle.login(&alice, net(3), 2, start + second(60)).is_ok());
        let bob = UserName::parse("bob").unwrap();
        throttle.login(&bob, net(5), 2, start).unwrap();
        throttle.login(&alice, net(5), 0, start).unwrap();
        assert!(throttle.login(&bob, net(5), 2, start).is_err(), "by address, whoever is tried");
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
