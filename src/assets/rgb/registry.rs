//! The open wallets: each at most once, one caller at a time, and not all of them at the same time.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::Network;
use tokio::sync::Semaphore;

use super::kept::Kept;
use super::wallet::{Place, RgbWallet};
use super::{Config, SERVICE, misconfigured, nonsense, reveal};
use crate::ids::WalletId;
use crate::ports::PortError;
use crate::ports::assets::{AssetError, Refusal, WalletKeys};
use crate::secret::{keep_private, make_private_folder};

/// The file whose lock says that a process uses the folder. The system lets go of it when the process dies, however it dies.
const IN_USE: &str = "in-use";

/// The file that tells this folder from every other.
const IDENTITY: &str = "identity";

pub(super) struct Registry {
    /// What tells the folder from every other.
    pub(super) identity: String,
    inner: Arc<Inner>,
    /// How many threads may be busy with rgb-lib.
    at_once: Semaphore,
}

struct Inner {
    data_dir: PathBuf,
    indexer: String,
    network: Network,
    most_open: usize,
    slots: Mutex<HashMap<WalletId, Arc<Slot>>>,
    clock: AtomicU64,
    _lock: File,
}

/// The place of one wallet. Whoever holds the mutex is the only one who touches its folder.
#[derive(Default)]
struct Slot {
    open: Mutex<Option<Opened>>,
    last_used: AtomicU64,
}

/// A wallet of the library, and what is kept of its folder. One that is dropped and not closed is made anew from what is kept.
struct Opened {
    wallet: RgbWallet,
    kept: Kept,
}

/// What a job does to the wallet's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Reads,
    /// What it has written is kept when it has gone well, and else thrown away.
    Writes,
}

impl Opened {
    fn close(self) {
        drop(self.wallet);
        self.kept.close();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let open = self.open.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = open.take() {
            opened.close();
        }
    }
}

impl Registry {
    pub(super) fn open(config: &Config, network: Network) -> Result<Self, PortError> {
        let indexer = config.indexer.clone().ok_or_else(|| misconfigured("assets.indexer is not set"))?;
        make_private_folder(&config.data_dir)
            .map_err(|e| misconfigured(format!("assets.data_dir {}: {e}", config.data_dir.display())))?;
        let data_dir = fs::canonicalize(&config.data_dir).map_err(misconfigured)?;
        // Whoever may not enter it reads nothing of what is in it, whatever rgb-lib makes there.
        keep_private(&data_dir);
        let lock = lock(&data_dir)?;
        let identity = identity(&data_dir)?;
        let inner = Inner {
            _lock: lock,
            data_dir,
            indexer,
            network,
            most_open: config.open_wallets.max(1),
            slots: Mutex::default(),
            clock: AtomicU64::new(0),
        };
        Ok(Self { identity, inner: Arc::new(inner), at_once: Semaphore::new(config.at_once.max(1)) })
    }

    /// Runs a job on a wallet, in a thread that may block.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        keys: &WalletKeys,
        kind: Job,
        job: impl FnOnce(&mut RgbWallet) -> Result<T, AssetError> + Send + 'static,
    ) -> Result<T, AssetError> {
        let (inner, keys) = (Arc::clone(&self.inner), keys.clone());
        self.blocking(move || inner.run(&keys, kind, job)).await
    }

    /// Opens a copy of what is kept of a wallet, which shows that it can be opened.
    pub(super) async fn try_out(&self, keys: &WalletKeys) -> Result<(), AssetError> {
        let (inner, keys) = (Arc::clone(&self.inner), keys.clone());
        self.blocking(move || inner.try_out(&keys)).await
    }

    /// Makes a wallet watch every colored script below an index, and answers the first index that it has given to nobody.
    pub(super) async fn reveal(&self, keys: &WalletKeys, below: u32) -> Result<u32, AssetError> {
        let (inner, keys) = (Arc::clone(&self.inner), keys.clone());
        self.blocking(move || inner.reveal(&keys, below)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, AssetError> + Send + 'static,
    ) -> Result<T, AssetError> {
        let _turn = self.at_once.acquire().await.map_err(nonsense)?;
        // A panic of the library ends this call and nothing else: what it has done to the folder is thrown away.
        match tokio::task::spawn_blocking(job).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "the RGB library has panicked; the wallet is put back to the last good state");
                Err(Refusal::Broken.into())
            }
            Err(error) => Err(nonsense(error).into()),
        }
    }
}

impl Inner {
    fn run<T>(
        &self,
        keys: &WalletKeys,
        kind: Job,
        job: impl FnOnce(&mut RgbWallet) -> Result<T, AssetError>,
    ) -> Result<T, AssetError> {
        let slot = self.slot(keys);
        let mut open = locked(&slot.open);
        // Taken out, so that a panic leaves no wallet behind that nobody knows the state of.
        let mut opened = self.opened(open.take(), keys)?;
        let done = job(&mut opened.wallet);
        if kind == Job::Writes {
            if done.is_ok() {
                opened.kept.take()?;
            } else if opened.kept.differs()? {
                // Half of a call is no state that anybody knows: the next one begins with the state before it.
                return done;
            }
        }
        *open = Some(opened);
        drop(open);
        self.close_the_idle();
        done
    }

    fn opened(&self, open: Option<Opened>, keys: &WalletKeys) -> Result<Opened, AssetError> {
        if let Some(opened) = open {
            return Ok(opened);
        }
        let place = self.place(keys);
        fs::create_dir_all(&place.folder).map_err(misconfigured)?;
        let kept = Kept::ready(place.wallet_folder(keys))?;
        Ok(Opened { wallet: RgbWallet::open(&place, keys, &self.indexer)?, kept })
    }

    fn reveal(&self, keys: &WalletKeys, below: u32) -> Result<u32, AssetError> {
        let slot = self.slot(keys);
        let mut open = locked(&slot.open);
        let mut opened = self.opened(open.take(), keys)?;
        let next = opened.wallet.next_index()?;
        if below <= next {
            *open = Some(opened);
            return Ok(next);
        }
        // Two handles on one file of the library would overwrite each other: ours is closed first.
        let Opened { wallet, mut kept } = opened;
        drop(wallet);
        let next = reveal::colored(&self.place(keys), keys, below)?;
        kept.take()?;
        kept.close();
        Ok(next)
    }

    fn try_out(&self, keys: &WalletKeys) -> Result<(), AssetError> {
        let slot = self.slot(keys);
        let mut open = locked(&slot.open);
        let place = self.place(keys);
        if !place.exists() {
            return Ok(());
        }
        let opened = self.opened(open.take(), keys)?;
        let copy = place.trial()?;
        opened.kept.copy_to(&copy.wallet_folder(keys))?;
        *open = Some(opened);
        drop(open);
        self.close_the_idle();
        let tried = RgbWallet::open(&copy, keys, &self.indexer).map(drop);
        fs::remove_dir_all(&copy.folder).map_err(misconfigured)?;
        tried
    }

    fn place(&self, keys: &WalletKeys) -> Place {
        Place { folder: self.data_dir.join(keys.id().to_string()), network: self.network }
    }

    fn slot(&self, keys: &WalletKeys) -> Arc<Slot> {
        let slot = Arc::clone(locked(&self.slots).entry(keys.id()).or_default());
        slot.last_used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        slot
    }

    /// Closes those that were used the longest ago, as far as nobody is using them.
    fn close_the_idle(&self) {
        let mut slots = locked(&self.slots);
        while slots.len() > self.most_open {
            let idle = slots.iter().filter(|(_, slot)| Arc::strong_count(slot) == 1);
            let oldest = idle.min_by_key(|(_, slot)| slot.last_used.load(Ordering::Relaxed));
            let Some(id) = oldest.map(|(id, _)| id.clone()) else { return };
            slots.remove(&id);
        }
    }
}

fn lock(data_dir: &Path) -> Result<File, PortError> {
    let path = data_dir.join(IN_USE);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(misconfigured)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PortError::Misconfigured {
            service: SERVICE,
            reason: format!("another process uses assets.data_dir {}", data_dir.display()),
        }),
        Err(TryLockError::Error(e)) => Err(misconfigured(e)),
    }
}

/// Drawn once, and written under another name first: half a name would be another folder's.
fn identity(data_dir: &Path) -> Result<String, PortError> {
    let path = data_dir.join(IDENTITY);
    match fs::read_to_string(&path) {
        Ok(identity) => Ok(identity.trim().to_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let identity = uuid::Uuid::new_v4().simple().to_string();
            let draft = data_dir.join("identity.new");
            fs::write(&draft, &identity).map_err(misconfigured)?;
            fs::rename(&draft, &path).map_err(misconfigured)?;
            Ok(identity)
        }
        Err(e) => Err(misconfigured(e)),
    }
}

/// A job that panicked has left nothing half-done behind the mutex: what it works on is taken out first.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAN: &str = "tpubDDfvzhdVV4unsoKt5aE6dcsNsfeWbTgmLZPi8LQDYU2xixrYemMfWJ3BaVneH3u7DBQePdTwhpybaKRU95pi6PMUtLPBJLVQRpzEnjfjZzX";
    const COL: &str = "tpubDDPLJfdVbDoGtnn6hSto3oCnm6hpfHe9uk2MxcANanxk87EuquhSVfSLQv7e5UykgzaFn41DUXaikjjVGcUSUTGNaJ9LcozfRwatKp1vTfC";

    fn registry(data_dir: &Path) -> Registry {
        let indexer = Some("http://127.0.0.1:1".to_owned());
        let config = Config { data_dir: data_dir.to_owned(), indexer, ..Config::default() };
        Registry::open(&config, Network::Regtest).unwrap()
    }

    fn stash(data_dir: &Path, keys: &WalletKeys) -> PathBuf {
        data_dir.join(keys.id().to_string()).join(keys.fingerprint()).join("rgb/stash.dat")
    }

    async fn opens(registry: &Registry, keys: &WalletKeys) {
        assert_eq!(registry.run(keys, Job::Reads, RgbWallet::assets).await.unwrap(), Vec::new());
        registry.try_out(keys).await.unwrap();
    }

    #[tokio::test]
    async fn a_call_that_panics_or_fails_leaves_nothing_behind() {
        let data_dir = tempfile::tempdir().unwrap();
        let keys = WalletKeys::parse(VAN, COL, "1f5bd7df", Network::Regtest).unwrap();
        let file = stash(data_dir.path(), &keys);
        let first = registry(data_dir.path());
        first.run(&keys, Job::Writes, RgbWallet::assets).await.unwrap();
        let whole = fs::read(&file).unwrap();
        let cut = file.clone();
        let panicked = first.run(&keys, Job::Writes, move |_| -> Result<(), AssetError> {
            fs::write(&cut, "cut").unwrap();
            panic!("as the library does")
        });
        assert_eq!(panicked.await.unwrap_err(), Refusal::Broken.into());
        opens(&first, &keys).await;
        assert_eq!(fs::read(&file).unwrap(), whole);
        let cut = file.clone();
        let failed = first.run(&keys, Job::Writes, move |_| -> Result<(), AssetError> {
            fs::write(&cut, "cut").unwrap();
            Err(Refusal::TooLate.into())
        });
        assert_eq!(failed.await.unwrap_err(), Refusal::TooLate.into());
        opens(&first, &keys).await;
        assert_eq!(fs::read(&file).unwrap(), whole);
    }

    /// A process that dies closes nothing: its mark stays, and so does what it was about to write.
    #[tokio::test]
    async fn what_a_dead_process_has_cut_short_is_put_back_and_what_is_lost_is_named() {
        let data_dir = tempfile::tempdir().unwrap();
        let keys = WalletKeys::parse(VAN, COL, "1f5bd7df", Network::Regtest).unwrap();
        let (file, kept) = (stash(data_dir.path(), &keys), data_dir.path().join(keys.id().to_string()).join("kept"));
        let first = registry(data_dir.path());
        first.run(&keys, Job::Writes, RgbWallet::assets).await.unwrap();
        drop(first);
        fs::write(&file, "cut").unwrap();
        fs::write(kept.join("open"), "").unwrap();
        let second = registry(data_dir.path());
        opens(&second, &keys).await;
        drop(second);
        // What is kept is broken itself: nothing can be put back, and whoever looks is told.
        for object in fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()) {
            if object.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u64>().is_ok()) {
                fs::write(&object, "cut").unwrap();
            }
        }
        fs::write(kept.join("open"), "").unwrap();
        let third = registry(data_dir.path());
        assert!(third.try_out(&keys).await.is_err());
    }
}
