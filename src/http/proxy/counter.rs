//! Who is being served now. Nobody is asked who he is, so there are few places for all, and fewer for the files of one client: whoever
//! is slow on purpose stops himself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::client::Client;

/// Calls of anybody at the same time: a small share of the connections, which are for those who have keys.
const CALLS_AT_ONCE: usize = 64;
/// Files that one client brings and fetches at the same time.
const FILES_OF_ONE: u32 = 2;

/// Where calls are served. Without limits everybody is served at once.
pub struct Counter {
    calls: Option<Arc<Semaphore>>,
    files: Arc<Mutex<HashMap<Client, u32>>>,
}

/// A call that is being served, until its answer is written or nobody waits for it any more.
pub struct Served {
    client: Client,
    files: Option<Arc<Mutex<HashMap<Client, u32>>>>,
    holds_file: bool,
    _call: Option<OwnedSemaphorePermit>,
}

impl Counter {
    #[must_use]
    pub fn new(is_limited: bool) -> Self {
        Self { calls: is_limited.then(|| Arc::new(Semaphore::new(CALLS_AT_ONCE))), files: Arc::default() }
    }

    /// Begins to serve a client; nothing where too many are.
    #[must_use]
    pub fn serve(&self, client: Client) -> Option<Served> {
        let call = match &self.calls {
            None => None,
            Some(calls) => Some(Arc::clone(calls).try_acquire_owned().ok()?),
        };
        let files = self.calls.is_some().then(|| Arc::clone(&self.files));
        Some(Served { client, files, holds_file: false, _call: call })
    }
}

impl Served {
    /// Begins to take or to hand out a file; answers whether the client may have one more.
    #[must_use]
    pub fn takes_file(&mut self) -> bool {
        let Some(files) = &self.files else { return true };
        if self.holds_file {
            return true;
        }
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = files.entry(self.client).or_default();
        self.holds_file = *under_way < FILES_OF_ONE;
        if self.holds_file {
            *under_way = under_way.saturating_add(1);
        }
        self.holds_file
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let Some(files) = self.files.as_ref().filter(|_| self.holds_file) else { return };
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = files.get_mut(&self.client) {
            *under_way = under_way.saturating_sub(1);
            if *under_way == 0 {
                files.remove(&self.client);
            }
        }
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
    fn one_client_has_two_files_under_way_and_all_have_sixty_four_calls() {
        let counter = Counter::new(true);
        let (one, other) = (client("198.51.100.7"), client("198.51.100.8"));
        let mut served: Vec<_> = (0..64).filter_map(|_| counter.serve(one)).collect();
        assert!(served.len() == 64 && counter.serve(other).is_none());
        assert_eq!(served.iter_mut().filter_map(|call| call.takes_file().then_some(())).count(), 2);
        served.truncate(1);
        assert!(served[0].takes_file(), "it has one");
        let mut theirs = counter.serve(other).unwrap();
        assert!(theirs.takes_file());
        let mut second = counter.serve(one).unwrap();
        assert!(second.takes_file() && !counter.serve(one).unwrap().takes_file());
        drop((served, second, theirs));
        assert!(counter.files.lock().unwrap().is_empty(), "nobody is remembered");
        let free = Counter::new(false);
        assert!((0..99).all(|_| free.serve(one).is_some_and(|mut call| call.takes_file())));
    }
}
