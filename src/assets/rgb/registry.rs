//! The open wallets: each at most once, one caller at a time, and not all of them at the same time.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::Network;
use tokio::sync::Semaphore;

use super::wallet::{Place, RgbWallet};
use super::{Config, SERVICE, misconfigured, nonsense, reveal};
use crate::ids::WalletId;
use crate::ports::PortError;
use crate::ports::assets::{AssetError, WalletKeys};
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
    open: Mutex<Option<RgbWallet>>,
    last_used: AtomicU64,
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
        job: impl FnOnce(&mut RgbWallet) -> Result<T, AssetError> + Send + 'static,
    ) -> Result<T, AssetError> {
        let (inner, keys) = (Arc::clone(&self.inner), keys.clone());
        self.blocking(move || inner.run(&keys, job)).await
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
        // A panic of the library ends this call and nothing else: the wallet is opened anew by the next one.
        tokio::task::spawn_blocking(job).await.map_err(nonsense)?
    }
}

impl Inner {
    fn run<T>(
        &self,
        keys: &WalletKeys,
        job: impl FnOnce(&mut RgbWallet) -> Result<T, AssetError>,
    ) -> Result<T, AssetError> {
        let slot = self.slot(keys);
        let mut open = locked(&slot.open);
        // Taken out, so that a panic leaves no wallet behind that nobody knows the state of.
        let mut wallet = match open.take() {
            Some(wallet) => wallet,
            None => RgbWallet::open(&self.place(keys), keys, &self.indexer)?,
        };
        let done = job(&mut wallet);
        *open = Some(wallet);
        drop(open);
        self.close_the_idle();
        done
    }

    fn reveal(&self, keys: &WalletKeys, below: u32) -> Result<u32, AssetError> {
        let slot = self.slot(keys);
        let mut open = locked(&slot.open);
        let place = self.place(keys);
        if !place.exists() {
            *open = Some(RgbWallet::open(&place, keys, &self.indexer)?);
        }
        // Two handles on one file of the library would overwrite each other: ours is closed first.
        drop(open.take());
        Ok(reveal::colored(&place, keys, below)?)
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
