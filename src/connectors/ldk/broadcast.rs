//! Transactions on their way out. LDK wants to send them at once; they are held until what led to them is durable.

use std::sync::{Arc, Mutex};

use bitcoin::Transaction;
use lightning::chain::chaininterface::{BroadcasterInterface, TransactionType};

use super::types::lock;
use super::wallet::NodeWallet;
use crate::ports::chain::{BroadcastOutcome, ChainBackend};
use crate::store::node::Step;

/// One transaction, or a child with its parents.
pub type Package = Vec<Transaction>;

pub struct Broadcaster {
    wallet: Arc<NodeWallet>,
    held: Mutex<Vec<Package>>,
}

impl Broadcaster {
    #[must_use]
    pub fn new(wallet: Arc<NodeWallet>) -> Self {
        Self { wallet, held: Mutex::default() }
    }

    /// What may go out after the next commit.
    pub fn take(&self) -> Vec<Package> {
        std::mem::take(&mut *lock(&self.held))
    }

    pub fn hold(&self, package: Package) {
        self.hold_for(package, Vec::new());
    }

    /// The same, for a reason that has to be in the same commit: without it nobody knows that it was sent, or it is never sent.
    pub fn hold_for(&self, package: Package, reason: Vec<Step>) {
        // The wallet knows it in the same commit: its coins are spent, its change is to come, and it is sent again if need be.
        self.wallet.sending(&package, reason);
        lock(&self.held).push(package);
        self.wallet.wake();
    }
}

impl BroadcasterInterface for Broadcaster {
    fn broadcast_transactions(&self, transactions: &[(&Transaction, TransactionType)]) {
        self.hold(parents_first(transactions.iter().map(|(tx, _)| (*tx).clone()).collect()));
    }
}

/// LDK gives no order: what spends another of the same package comes last.
fn parents_first(mut package: Package) -> Package {
    let ids: Vec<_> = package.iter().map(Transaction::compute_txid).collect();
    package.sort_by_key(|tx| tx.input.iter().any(|input| ids.contains(&input.previous_output.txid)));
    package
}

/// Offers packages to the network. What is refused or not answered is sent again by LDK or the wallet.
pub async fn send(chain: Arc<dyn ChainBackend>, packages: Vec<Package>) {
    for package in packages {
        offer(&*chain, &package).await;
    }
}

/// Offers one package. What came of it; nothing when there was no answer.
pub async fn offer(chain: &dyn ChainBackend, package: &[Transaction]) -> Option<BroadcastOutcome> {
    let txids: Vec<String> = package.iter().map(|tx| tx.compute_txid().to_string()).collect();
    let outcome = match package {
        [transaction] => chain.broadcast(transaction).await,
        transactions => chain.broadcast_package(transactions).await,
    };
    match &outcome {
        Ok(BroadcastOutcome::Refused { reason }) => tracing::debug!(?txids, reason, "a transaction was refused"),
        Ok(outcome) => tracing::debug!(?txids, ?outcome, "sent a transaction"),
        Err(error) => tracing::warn!(?txids, %error, "could not send a transaction; it is sent again later"),
    }
    outcome.ok()
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;
    use bitcoin::{OutPoint, TxIn, Txid};

    use super::*;

    fn spending(txid: Txid) -> Transaction {
        Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: vec![TxIn { previous_output: OutPoint { txid, vout: 0 }, ..TxIn::default() }],
            output: Vec::new(),
        }
    }

    #[test]
    fn a_child_comes_after_its_parents() {
        let parent = spending(Txid::all_zeros());
        let child = spending(parent.compute_txid());
        assert_eq!(parents_first(vec![child.clone(), parent.clone()]), [parent, child]);
    }
}
