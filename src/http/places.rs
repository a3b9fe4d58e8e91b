//! Who may be connected. There is a place for so many at once, and for so many of one address. Whoever needs a place when all are taken
//! gets that of the one who has waited longest without asking anything: what is kept open for later makes room for what is wanted now.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client::network;
use super::config::Config;
use super::slow::{Conversation, Patience};

/// How long a place that is being given up may take to become free.
const FREE_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether an address has fewer places again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// All places.
pub struct Places {
    most: u32,
    /// Places that one address may have. One of this machine may have all: it may be the proxy that brings everybody.
    most_of_one: usize,
    free: Arc<Semaphore>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    by_number: HashMap<u64, (IpAddr, Arc<Conversation>)>,
    /// How many each address has.
    by_address: HashMap<IpAddr, usize>,
}

/// A place, until it is dropped.
pub struct Place {
    places: Arc<Places>,
    number: u64,
    address: IpAddr,
    conversation: Arc<Conversation>,
    _free: OwnedSemaphorePermit,
}

impl Places {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let most = config.max_connections.max(1);
        Self {
            most,
            most_of_one: usize::try_from(config.max_connections_per_address.max(1)).unwrap_or(usize::MAX),
            free: Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(usize::MAX))),
            taken: Mutex::default(),
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for an address, if there is one now.
    #[must_use]
    pub fn try_take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let free = Arc::clone(&self.free).try_acquire_owned().ok()?;
        self.try_seat(network(peer), free)
    }

    /// A place that somebody else is asked to give up; nothing where nobody can.
    pub fn try_wait(self: &Arc<Self>, peer: IpAddr) -> Option<impl Future<Output = Option<Place>> + use<>> {
        let (address, places) = (network(peer), Arc::clone(self));
        {
            let taken = self.taken();
            let of_own = (!self.may_have_more(&taken, address)).then_some(address);
            taken.longest_waiting(of_own)?.is_unwanted();
        }
        Some(async move {
            let found = async {
                loop {
                    let free = Arc::clone(&places.free).acquire_owned().await.ok()?;
                    if let Some(place) = places.try_seat(address, free) {
                        return Some(place);
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            };
            tokio::time::timeout(FREE_WITHIN, found).await.ok().flatten()
        })
    }

    fn may_have_more(&self, taken: &Taken, address: IpAddr) -> bool {
        address.is_loopback() || taken.by_address.get(&address).is_none_or(|has| *has < self.most_of_one)
    }

    fn try_seat(self: &Arc<Self>, address: IpAddr, free: OwnedSemaphorePermit) -> Option<Place> {
        let mut taken = self.taken();
        if !self.may_have_more(&taken, address) {
            return None;
        }
        let (number, conversation) = (taken.next, Arc::new(Conversation::new(Patience::USUAL)));
        taken.next = taken.next.wrapping_add(1);
        taken.by_number.insert(number, (address, Arc::clone(&conversation)));
        let has = taken.by_address.entry(address).or_default();
        *has = has.saturating_add(1);
        Some(Place { places: Arc::clone(self), number, address, conversation, _free: free })
    }

    /// Returns when nobody is connected any more.
    pub async fn all_are_free(&self) {
        // The semaphore is never closed.
        drop(self.free.acquire_many(self.most).await);
    }
}

impl Taken {
    /// The connection that has waited longest without a call, of one address or of any.
    fn longest_waiting(&self, of: Option<IpAddr>) -> Option<&Conversation> {
        let candidates = self.by_number.values().filter(|(address, _)| of.is_none_or(|of| of == *address));
        let waiting = candidates.filter_map(|(_, talk)| Some((talk.waits_since()?, talk)));
        waiting.min_by_key(|(since, _)| *since).map(|(_, talk)| talk.as_ref())
    }
}

impl Place {
    /// What is done on it.
    #[must_use]
    pub fn conversation(&self) -> Arc<Conversation> {
        Arc::clone(&self.conversation)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.by_number.remove(&self.number);
        if let Some(has) = taken.by_address.get_mut(&self.address) {
            *has = has.saturating_sub(1);
            if *has == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(most: u32, most_of_one: u32) -> Arc<Places> {
        Arc::new(Places::new(&Config {
            max_connections: most,
            max_connections_per_address: most_of_one,
            ..Config::default()
        }))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn two_addresses_can_not_take_all_places() {
        let places = places(10, 3);
        let strangers = ["198.51.100.7", "198.51.100.8", "2001:db8::1", "2001:db8::2"].map(address);
        let taken: Vec<_> =
            strangers.iter().flat_map(|one| (0..9).filter_map(|_| places.try_take(*one)).collect::<Vec<_>>()).collect();
        assert_eq!(taken.len(), 9, "neighbours of one network are one");
        assert!(places.try_take(address("203.0.113.9")).is_some());
        drop(taken);
        let proxied: Vec<_> = (0..12).filter_map(|_| places.try_take(address("127.0.0.1"))).collect();
        assert_eq!(proxied.len(), 10, "a proxy of this machine brings everybody");
        drop(proxied);
        places.all_are_free().await;
    }

    #[tokio::test]
    async fn whoever_asks_gets_the_place_of_the_one_who_has_waited_longest() {
        let places = places(3, 3);
        let seats: Vec<_> = (1..=3).filter_map(|n| places.try_take(address(&format!("198.51.100.{n}")))).collect();
        assert!(places.try_take(address("203.0.113.9")).is_none());
        // The first is busy; of the others the second came earlier.
        seats[0].conversation().is_asked();
        let soon = places.try_wait(address("203.0.113.9")).expect("somebody can be asked");
        let [busy, gives_up, stays] = <[Place; 3]>::try_from(seats).ok().unwrap();
        tokio::time::timeout(Duration::from_secs(1), gives_up.conversation().until_unwanted()).await.unwrap();
        drop(gives_up);
        assert!(soon.await.is_some());
        stays.conversation().is_asked();
        assert!(places.try_wait(address("203.0.113.9")).is_none(), "all that are there are busy");
        drop(busy);
    }
}
