//! Proofs that fail: how many keys that are none one client may show. Each that could be one costs a look into the database, which
//! others wait for. A key that was right a moment ago is never held up by what others of the same address try.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash as _, sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::client::Client;
use super::problem::Problem;
use crate::flows::Code;

const WINDOW: Duration = Duration::from_secs(60);
/// Clients and keys that are remembered.
const REMEMBERED: usize = 10_000;
/// Keys of this machine that are looked up at the same time once too many were wrong: a small share of what reads the database.
const LOOKED_UP_AT_ONCE: usize = 2;

/// What is known of those who show keys. `None` where limits are off.
pub struct Guesses {
    most: Option<u32>,
    known: Mutex<Known>,
    /// A proxy of this machine may bring everybody. Whoever has a right key is not kept out by what others guess there; that only
    /// never costs much.
    shared: Semaphore,
}

#[derive(Default)]
struct Known {
    /// Keys that were right when they were last shown, by their hash.
    right: HashSet<sha256::Hash>,
    /// How often each client was wrong, and since when that is counted.
    wrong: HashMap<Client, (u32, Instant)>,
}

/// A key that is being looked up.
pub struct Guess<'a> {
    guesses: &'a Guesses,
    client: Client,
    key: sha256::Hash,
    _shared: Option<SemaphorePermit<'a>>,
}

impl Guesses {
    #[must_use]
    pub fn new(enabled: bool, most: NonZeroU32) -> Self {
        let shared = Semaphore::new(LOOKED_UP_AT_ONCE);
        Self { most: enabled.then_some(most.get()), known: Mutex::default(), shared }
    }

    /// Before a key is looked up. It counts as wrong until it was found to be right: many at once are counted, too.
    ///
    /// # Errors
    /// When the client has shown too many that were wrong.
    pub fn begin(&self, client: Client, secret: &str) -> Result<Guess<'_>, Problem> {
        let key = sha256::Hash::hash(secret.as_bytes());
        let mut shared = None;
        if let Some(most) = self.most {
            let now = Instant::now();
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if !known.right.contains(&key) {
                known.forget(now);
                let (times, since) = known.wrong.entry(client).or_insert((0, now));
                if now.duration_since(*since) >= WINDOW {
                    (*times, *since) = (0, now);
                }
                if *times >= most && client.is_this_machine() {
                    shared = Some(self.shared.try_acquire().map_err(|_| too_many(1))?);
                } else if *times >= most {
                    let wait = WINDOW.saturating_sub(now.duration_since(*since)).as_secs().saturating_add(1);
                    return Err(too_many(u32::try_from(wait).unwrap_or(u32::MAX)));
                }
                *times = times.saturating_add(1);
            }
        }
        Ok(Guess { guesses: self, client, key, _shared: shared })
    }
}

fn too_many(seconds: u32) -> Problem {
    let detail = format!("this address has shown too many keys that are not in force; try again in {seconds} s");
    Problem::new(Code::RateLimited, detail).with_retry_after(seconds)
}

impl Known {
    fn forget(&mut self, now: Instant) {
        if self.wrong.len() >= REMEMBERED {
            self.wrong.retain(|_, (_, since)| now.duration_since(*since) < WINDOW);
        }
        // More clients than that are one who has a whole network: what he is then spared is a minute's memory.
        if self.wrong.len() >= REMEMBERED {
            self.wrong.clear();
        }
    }
}

impl Guess<'_> {
    pub fn was_right(self) {
        if self.guesses.most.is_none() {
            return;
        }
        let mut known = self.guesses.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.right.len() >= REMEMBERED {
            known.right.clear();
        }
        if known.right.insert(self.key)
            && let Some((times, _)) = known.wrong.get_mut(&self.client)
        {
            *times = times.saturating_sub(1);
        }
    }

    pub fn was_wrong(self) {
        self.guesses.known.lock().unwrap_or_else(PoisonError::into_inner).right.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{Extensions, HeaderMap};

    use crate::http::client::Peer;

    fn client(address: &str) -> Client {
        let mut extensions = Extensions::new();
        extensions.insert(Peer(address.parse().unwrap()));
        Client::of(&HeaderMap::new(), &extensions, false)
    }

    #[test]
    fn who_guesses_waits_and_who_has_shown_a_right_key_from_there_does_not() {
        let guesses = Guesses::new(true, NonZeroU32::new(3).unwrap());
        let (busy, calm) = (client("198.51.100.7"), client("198.51.100.8"));
        guesses.begin(busy, "right").unwrap().was_right();
        for key in ["a", "b", "c"] {
            guesses.begin(busy, key).unwrap().was_wrong();
        }
        let refused = guesses.begin(busy, "d").map(drop).unwrap_err();
        assert_eq!(refused.code, Code::RateLimited);
        assert!(refused.retry_after.is_some_and(|seconds| (1..=61).contains(&seconds)));
        guesses.begin(busy, "right").unwrap().was_right();
        guesses.begin(calm, "d").unwrap().was_wrong();
        // One that was right and is no longer: from then on it counts.
        guesses.begin(busy, "right").unwrap().was_wrong();
        assert!(guesses.begin(busy, "right").is_err());
    }

    #[test]
    fn who_guesses_through_a_proxy_of_this_machine_keeps_nobody_else_out() {
        let guesses = Guesses::new(true, NonZeroU32::MIN);
        let everybody = client("127.0.0.1");
        for n in 0..9 {
            guesses.begin(everybody, &n.to_string()).unwrap().was_wrong();
        }
        let under_way: Vec<_> = (10..19).map(|n| guesses.begin(everybody, &n.to_string())).collect();
        assert_eq!(under_way.iter().filter(|guess| guess.is_ok()).count(), 2, "but it is looked up seldom");
        drop(under_way);
        guesses.begin(everybody, "right").unwrap().was_right();
    }

    #[test]
    fn many_at_once_are_counted_before_any_of_them_is_known_to_be_wrong() {
        let guesses = Guesses::new(true, NonZeroU32::new(3).unwrap());
        let under_way: Vec<_> = (0..9).map(|n| guesses.begin(client("198.51.100.7"), &n.to_string())).collect();
        assert_eq!(under_way.iter().filter(|guess| guess.is_ok()).count(), 3);
        let off = Guesses::new(false, NonZeroU32::MIN);
        assert!((0..9).all(|n| off.begin(client("198.51.100.7"), &n.to_string()).is_ok()));
    }
}
