//! How much is brought and fetched at the same time. A file is in memory while it is on its way, several times over; strangers who come
//! together must not fill it. Those who bring, those who fetch and those who pay our own invoices do not take each other's room.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room is given in steps of so many bytes.
const STEP: usize = 64 * 1024;
/// Files of the largest size that may be on their way in at the same time, out, and in for invoices of this gateway besides.
const BROUGHT_AT_ONCE: u64 = 4;
const FETCHED_AT_ONCE: u64 = 4;
const FOR_OUR_OWN: u64 = 2;

/// All the room there is.
pub struct Rooms {
    incoming: Arc<Semaphore>,
    own: Arc<Semaphore>,
    outgoing: Arc<Semaphore>,
}

impl Rooms {
    pub fn new(largest: u64) -> Self {
        let of = |at_once: u64| {
            let bytes = usize::try_from(largest.saturating_mul(at_once)).unwrap_or(usize::MAX);
            Arc::new(Semaphore::new((bytes / STEP).clamp(1, Semaphore::MAX_PERMITS)))
        };
        Self { incoming: of(BROUGHT_AT_ONCE), own: of(FOR_OUR_OWN), outgoing: of(FETCHED_AT_ONCE) }
    }

    /// A room of no size yet, for what anybody brings.
    pub fn for_strangers(&self) -> Room {
        Room { all: Arc::clone(&self.incoming), held: None }
    }

    /// The same for what is brought for an invoice that waits to be paid.
    pub fn for_our_own(&self) -> Room {
        Room { all: Arc::clone(&self.own), held: None }
    }

    /// The same for what is fetched.
    pub fn to_fetch(&self) -> Room {
        Room { all: Arc::clone(&self.outgoing), held: None }
    }
}

/// What one call takes of it, until it is dropped.
pub struct Room {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Grows to hold so many bytes; answers whether it could.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = bytes.div_ceil(STEP).saturating_sub(held);
        let Ok(wanted) = u32::try_from(wanted) else { return false };
        let Ok(more) = Arc::clone(&self.all).try_acquire_many_owned(wanted) else { return false };
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        true
    }

    pub fn leave(&mut self) {
        self.held = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_at_the_same_time_is_bounded_and_given_back() {
        let rooms = Rooms::new(STEP as u64);
        let (mut one, mut other) = (rooms.for_strangers(), rooms.for_strangers());
        assert!(one.grow(1) && one.grow(STEP) && one.grow(3 * STEP));
        assert!(other.grow(STEP) && !other.grow(STEP + 1), "four steps are all there is");
        let (mut fetched, mut ours) = (rooms.to_fetch(), rooms.for_our_own());
        assert!(fetched.grow(4 * STEP) && !fetched.grow(5 * STEP), "what is fetched needs none of it");
        assert!(ours.grow(2 * STEP) && !ours.grow(3 * STEP), "nor do payers of our invoices");
        drop(one);
        assert!(other.grow(4 * STEP) && !other.grow(usize::MAX));
    }
}
