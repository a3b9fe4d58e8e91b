//! One lock for each name, as long as somebody holds it or waits for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub struct Locks<K> {
    all: Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>,
}

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self { all: Mutex::default() }
    }
}

impl<K: Clone + Eq + Hash> Locks<K> {
    /// The lock of this name.
    pub fn of(&self, name: &K) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = all.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        all.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        all.insert(name.clone(), Arc::downgrade(&lock));
        lock
    }
}
