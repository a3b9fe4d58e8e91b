//! How much is brought and fetched at the same time. A file is in memory while it is on its way, several times over; strangers who come
//! together must not fill it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room is given in steps of so many bytes.
const STEP: usize = 64 * 1024;
/// Files of the largest size that may be on their way at the same time.
const LARGEST_AT_ONCE: u64 = 4;

/// All the room there is.
pub struct Rooms(Arc<Semaphore>);

impl Rooms {
    pub fn new(largest: u64) -> Self {
        let bytes = usize::try_from(largest.saturating_mul(LARGEST_AT_ONCE)).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new((bytes / STEP).clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// A room of no size yet.
    pub fn enter(&self) -> Room {
        Room { all: Arc::clone(&self.0), held: None }
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
        let (mut one, mut other) = (rooms.enter(), rooms.enter());
        assert!(one.grow(1) && one.grow(STEP) && one.grow(3 * STEP));
        assert!(other.grow(STEP) && !other.grow(STEP + 1), "four steps are all there is");
        drop(one);
        assert!(other.grow(4 * STEP) && !other.grow(usize::MAX));
    }
}
