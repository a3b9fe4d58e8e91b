//! How often one caller may call. Each key, each wallet and, where neither is asked for, each client has a bucket of its own.

use std::hash::Hash;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::client::Client;
use super::config::RateLimits;
use super::problem::Problem;
use crate::flows::{Code, ProxyPolicy};
use crate::ids::{KeyId, WalletId};

/// Full buckets are forgotten each time so many calls have been counted: what is kept is who called lately.
const FORGET_EVERY: u32 = 4_096;

/// The buckets. Empty when limits are off.
pub struct Limits {
    buckets: Option<Buckets>,
}

struct Buckets {
    keys: Keyed<KeyId>,
    wallets: Keyed<WalletId>,
    begins: Keyed<WalletId>,
    registrations: Keyed<Registrar>,
    all_registrations: Keyed<()>,
    searches: Keyed<WalletId>,
}

/// Who makes wallets known: a key, or where none is asked for, a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Registrar {
    Key(KeyId),
    Client(Client),
}

/// The buckets of those who exchange consignments. Empty when limits are off.
pub struct Clients {
    buckets: Option<(Keyed<Client>, Keyed<Client>)>,
}

impl Clients {
    #[must_use]
    pub fn new(enabled: bool, policy: &ProxyPolicy) -> Self {
        let buckets = || {
            let calls = Quota::per_second(policy.per_client_per_second);
            let uploads = Quota::per_minute(policy.uploads_per_client_per_minute);
            (
                Keyed::new(calls, "this address has made too many calls"),
                Keyed::new(uploads, "this address has brought too many files"),
            )
        };
        Self { buckets: enabled.then(buckets) }
    }

    /// # Errors
    /// When the client has to wait.
    pub fn check(&self, client: &Client, brings_file: bool) -> Result<(), Problem> {
        let Some((calls, uploads)) = &self.buckets else { return Ok(()) };
        calls.check(client)?;
        if brings_file { uploads.check(client) } else { Ok(()) }
    }
}

struct Keyed<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    calls: AtomicU32,
    what: &'static str,
}

impl Limits {
    #[must_use]
    pub fn new(config: &RateLimits) -> Self {
        let buckets = config.enabled.then(|| Buckets {
            keys: Keyed::new(Quota::per_second(config.per_key_per_second), "this API key has made too many calls"),
            wallets: Keyed::new(Quota::per_second(config.per_wallet_per_second), "this wallet has made too many calls"),
            begins: Keyed::new(
                Quota::per_minute(config.begins_per_wallet_per_minute),
                "this wallet has begun too many sends",
            ),
            registrations: Keyed::new(
                Quota::per_minute(config.registrations_per_key_per_minute),
                "too many wallets have been registered by this caller",
            ),
            all_registrations: Keyed::new(
                Quota::per_minute(config.registrations_per_minute),
                "too many wallets have been registered",
            ),
            searches: Keyed::new(
                Quota::per_minute(config.begins_per_wallet_per_minute),
                "this wallet has asked for too many ways",
            ),
        });
        Self { buckets }
    }

    /// # Errors
    /// When the key has to wait.
    pub fn key(&self, key: &KeyId) -> Result<(), Problem> {
        self.buckets.as_ref().map_or(Ok(()), |buckets| buckets.keys.check(key))
    }

    /// # Errors
    /// When the wallet has to wait.
    pub fn wallet(&self, wallet: &WalletId) -> Result<(), Problem> {
        self.buckets.as_ref().map_or(Ok(()), |buckets| buckets.wallets.check(wallet))
    }

    /// # Errors
    /// When the wallet has to wait before it begins another send.
    pub fn begin(&self, wallet: &WalletId) -> Result<(), Problem> {
        self.buckets.as_ref().map_or(Ok(()), |buckets| buckets.begins.check(wallet))
    }

    /// # Errors
    /// When a wallet that is not known yet has to wait. What one caller may not do uses up nothing of the others'.
    pub fn registration(&self, by: &Registrar) -> Result<(), Problem> {
        let Some(buckets) = &self.buckets else { return Ok(()) };
        buckets.registrations.check(by)?;
        buckets.all_registrations.check(&())
    }

    /// # Errors
    /// When the wallet has to wait before another way is searched for it.
    pub fn search(&self, wallet: &WalletId) -> Result<(), Problem> {
        self.buckets.as_ref().map_or(Ok(()), |buckets| buckets.searches.check(wallet))
    }
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    fn new(quota: Quota, what: &'static str) -> Self {
        Self { limiter: RateLimiter::keyed(quota), calls: AtomicU32::new(0), what }
    }

    fn check(&self, who: &K) -> Result<(), Problem> {
        if self.calls.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        self.limiter.check_key(who).map_err(|refusal| {
            let wait = refusal.wait_time_from(DefaultClock::default().now());
            let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
            Problem::new(Code::RateLimited, format!("{}; try again in {seconds} s", self.what))
                .with_retry_after(seconds)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn limits(enabled: bool) -> Limits {
        let one = NonZeroU32::MIN;
        Limits::new(&RateLimits {
            enabled,
            per_key_per_second: one,
            per_wallet_per_second: one,
            begins_per_wallet_per_minute: one,
            registrations_per_key_per_minute: one,
            registrations_per_minute: NonZeroU32::new(2).unwrap(),
            failed_keys_per_client_per_minute: one,
        })
    }

    #[test]
    fn a_wallet_that_calls_too_often_is_told_how_long_to_wait_and_others_are_not_held_up() {
        let limits = limits(true);
        let (a, b) = (WalletId::of_triple("a", "", ""), WalletId::of_triple("b", "", ""));
        assert!(limits.begin(&a).is_ok());
        let refused = limits.begin(&a).unwrap_err();
        assert_eq!(refused.code, Code::RateLimited);
        assert!(refused.retry_after.is_some_and(|s| (1..=61).contains(&s)));
        assert!(limits.begin(&b).is_ok());
        assert!(limits.wallet(&a).is_ok(), "begins and calls are counted apart");
    }

    #[test]
    fn registrations_are_counted_by_caller_and_over_all() {
        let limits = limits(true);
        let key = |id: &str| Registrar::Key(KeyId(id.to_owned()));
        assert!(limits.registration(&key("a")).is_ok());
        assert!((0..9).all(|_| limits.registration(&key("a")).is_err()));
        assert!(limits.registration(&key("b")).is_ok(), "what a was refused is not counted over all");
        assert!(limits.registration(&key("c")).is_err());
    }

    #[test]
    fn whoever_asks_for_ways_again_and_again_is_told_to_wait() {
        let limits = limits(true);
        let (a, b) = (WalletId::of_triple("a", "", ""), WalletId::of_triple("b", "", ""));
        assert!(limits.search(&a).is_ok());
        assert_eq!(limits.search(&a).unwrap_err().code, Code::RateLimited);
        assert!(limits.search(&b).is_ok() && limits.begin(&a).is_ok(), "others, and what else the wallet does, go on");
    }

    #[test]
    fn switched_off_nothing_is_counted() {
        let limits = limits(false);
        let a = WalletId::of_triple("a", "", "");
        assert!((0..1_000).all(|_| limits.begin(&a).is_ok()));
    }
}
