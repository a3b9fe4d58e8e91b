//! RGB in memory behind the port, for tests: assets that are only in the books of a [`World`], moved by real transactions.
//!
//! What is absent: the commitment to an asset in its transaction, so whoever believes a consignment believes the world; assets of more
//! than one schema; media; change of an asset onto a coin that is there already; and reorganisations of what has settled.
//! Nothing outside of tests wires it.

mod export;
mod seen;
#[cfg(test)]
mod tests;
mod texts;
mod transfer;
mod wallet;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::Psbt;

use self::seen::Seen;
use self::texts::Consigned;
use self::transfer::Acknowledged;
use self::wallet::Wallet;
use crate::clock::Clock;
use crate::ids::WalletId;
use crate::money::Amount;
use crate::ports::PortError;
use crate::ports::assets::{
    Asset, AssetEngine, AssetError, BegunTransfer, ColoredCoin, Consignment, NewAsset, NewReceive, NewTransfer,
    Receive, Refusal, RgbInvoice, Transfer, Verdict, WalletKeys,
};
use crate::ports::chain::{BroadcastOutcome, ChainBackend};
use crate::secret::Secret;

const SERVICE: &str = "fake RGB engine";

/// What all engines know together: the wallets, and which consignments are true. It is what an engine's folder is to a real one, so
/// an engine that is made anew on the same world has been restarted.
pub struct World {
    clock: Clock,
    state: Mutex<State>,
    /// Held during a call: one at a time, and that is more than the port asks for.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    seen: Seen,
    wallets: HashMap<WalletId, Wallet>,
    /// The names of the consignments that an engine has made: any other is a forgery.
    consigned: HashSet<[u8; 32]>,
}

impl World {
    #[must_use]
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, state: Mutex::default(), turn: tokio::sync::Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An engine that looks at the world through a chain.
pub struct FakeEngine {
    world: Arc<World>,
    chain: Arc<dyn ChainBackend>,
}

impl FakeEngine {
    #[must_use]
    pub fn new(world: Arc<World>, chain: Arc<dyn ChainBackend>) -> Arc<Self> {
        Arc::new(Self { world, chain })
    }

    /// Puts what was exported into this engine's world, over whatever it knows of the wallet. False when the password is another.
    #[must_use]
    pub fn restore(&self, keys: &WalletKeys, sealed: &[u8], password: &str) -> bool {
        let Some(wallet) = export::open(sealed, password) else { return false };
        self.world.lock().wallets.insert(keys.id(), wallet);
        true
    }

    fn now(&self) -> i64 {
        self.world.clock.now().unix_seconds()
    }

    /// A job on one wallet that needs nothing of the chain.
    async fn with<T>(&self, keys: &WalletKeys, job: impl FnOnce(&mut Wallet, i64) -> T + Send) -> T {
        let _turn = self.world.turn.lock().await;
        let now = self.now();
        job(self.world.lock().wallets.entry(keys.id()).or_default(), now)
    }

    /// Reads the blocks that came, and takes back those that lost.
    async fn look(&self) -> Result<(), PortError> {
        loop {
            let (height, tip) = self.world.lock().seen.tip();
            if tip.is_some() && self.chain.block_hash(height).await? != tip {
                self.world.lock().seen.pop();
                continue;
            }
            let Some(next) = self.chain.block_hash(height.saturating_add(1)).await? else { return Ok(()) };
            let block = self.chain.block(next).await?;
            self.world.lock().seen.push(block);
        }
    }

    async fn broadcast(&self, tx: &bitcoin::Transaction) -> Result<(), PortError> {
        match self.chain.broadcast(tx).await? {
            BroadcastOutcome::InMempool | BroadcastOutcome::InChain => Ok(()),
            BroadcastOutcome::Refused { reason } => Err(PortError::Unreachable { service: SERVICE, reason }),
        }
    }
}

#[async_trait]
impl AssetEngine for FakeEngine {
    fn read_invoice(&self, text: &str) -> Result<RgbInvoice, Refusal> {
        texts::read_invoice(text)
    }

    async fn learn_coins(&self, wallet: &WalletKeys, below: u32) -> Result<(), AssetError> {
        let _turn = self.world.turn.lock().await;
        self.look().await?;
        let State { seen, wallets, .. } = &mut *self.world.lock();
        wallets.entry(wallet.id()).or_default().take_in_coins(wallet, below, seen);
        Ok(())
    }

    async fn next_index(&self, wallet: &WalletKeys) -> Result<u32, AssetError> {
        Ok(self.with(wallet, |wallet, _| wallet.next_index).await)
    }

    async fn coins(&self, wallet: &WalletKeys) -> Result<Vec<ColoredCoin>, AssetError> {
        Ok(self.with(wallet, |wallet, _| wallet.colored_coins()).await)
    }

    async fn issue(&self, wallet: &WalletKeys, new: NewAsset) -> Result<Asset, AssetError> {
        let id = wallet.id();
        Ok(self.with(wallet, move |wallet, now| wallet.issue(&id, &new, now)).await?)
    }

    async fn assets(&self, wallet: &WalletKeys) -> Result<Vec<Asset>, AssetError> {
        Ok(self.with(wallet, |wallet, _| wallet.assets()).await)
    }

    async fn receive(&self, wallet: &WalletKeys, new: NewReceive) -> Result<Receive, AssetError> {
        Ok(self.with(wallet, |of, now| of.receive(wallet, &new, now)).await?)
    }

    async fn accept(&self, wallet: &WalletKeys, recipient: &str, consignment: Vec<u8>) -> Result<Verdict, AssetError> {
        let _turn = self.world.turn.lock().await;
        self.look().await?;
        let now = self.now();
        let State { seen, wallets, consigned } = &mut *self.world.lock();
        let read = Consigned::read(&consignment).filter(|_| consigned.contains(&texts::name_of(&consignment)));
        Ok(wallets.entry(wallet.id()).or_default().accept(recipient, read, seen, now)?)
    }

    async fn begin_transfer(&self, wallet: &WalletKeys, new: NewTransfer) -> Result<BegunTransfer, AssetError> {
        Ok(self.with(wallet, |of, now| of.begin_transfer(wallet, &new, now)).await?)
    }

    async fn end_transfer(&self, wallet: &WalletKeys, signed: &Psbt) -> Result<Vec<Consignment>, AssetError> {
        let _turn = self.world.turn.lock().await;
        let now = self.now();
        let State { wallets, consigned, .. } = &mut *self.world.lock();
        let consignments = wallets.entry(wallet.id()).or_default().end_transfer(signed, now)?;
        consigned.extend(consignments.iter().map(|consignment| texts::name_of(&consignment.bytes)));
        Ok(consignments)
    }

    async fn acknowledged(&self, wallet: &WalletKeys, recipient: &str) -> Result<(), AssetError> {
        let _turn = self.world.turn.lock().await;
        let now = self.now();
        let word = self.world.lock().wallets.entry(wallet.id()).or_default().acknowledge(recipient, now)?;
        if let Acknowledged::ByAll { batch, tx } = word {
            self.broadcast(&tx).await?;
            self.world.lock().wallets.entry(wallet.id()).or_default().went_out(batch, now);
        }
        Ok(())
    }

    async fn give_up(&self, wallet: &WalletKeys, batch: i32) -> Result<(), AssetError> {
        Ok(self.with(wallet, |wallet, now| wallet.give_up(batch, now)).await?)
    }

    async fn refresh(&self, wallet: &WalletKeys) -> Result<(), AssetError> {
        let _turn = self.world.turn.lock().await;
        self.look().await?;
        let now = self.now();
        let State { seen, wallets, .. } = &mut *self.world.lock();
        let of = wallets.entry(wallet.id()).or_default();
        of.take_in_coins(wallet, 0, seen);
        of.settle(seen, now);
        Ok(())
    }

    async fn transfers(&self, wallet: &WalletKeys) -> Result<Vec<Transfer>, AssetError> {
        Ok(self.with(wallet, |wallet, _| wallet.transfers()).await)
    }

    async fn export(&self, wallet: &WalletKeys, password: &Secret) -> Result<Vec<u8>, AssetError> {
        Ok(self.with(wallet, |wallet, _| export::seal(wallet, password.expose())).await)
    }

    /// Nothing is written down that could be broken.
    async fn try_out(&self, _wallet: &WalletKeys) -> Result<(), AssetError> {
        Ok(())
    }
}

/// More than there can be is all there can be: sums of what the books hold never get there.
fn sum(all: impl IntoIterator<Item = Amount>) -> Amount {
    all.into_iter().fold(Amount::ZERO, |sum, one| sum.checked_add(one).unwrap_or(Amount::MAX))
}

fn invalid(what: &'static str, reason: impl Into<String>) -> Refusal {
    Refusal::Invalid { what, reason: reason.into() }
}
