use std::str::FromStr;
use std::time::Duration;

use bitcoin::{Network, Psbt};
use sluice_signer::{Limits, Signer};

use super::*;
use crate::chain::fake::FakeChain;
use crate::clock::Timestamp;
use crate::money::{FeeRate, Sat};
use crate::ports::assets::{Account, Onto, Recipient, TransferStatus};

const START: u64 = 1_800_000_000;
const HOUR: u64 = 3_600;

/// Two wallets, each with an engine of its own on one world; the first has issued 100.
struct Pair {
    chain: Arc<FakeChain>,
    clock: Clock,
    engines: [Arc<FakeEngine>; 2],
    keys: [WalletKeys; 2],
    signer: Signer,
    asset: String,
}

fn units(n: u64) -> Amount {
    Amount::from_asset_units(n).unwrap()
}

fn wallet(mnemonic: &str) -> (Signer, WalletKeys) {
    let signer = Signer::from_mnemonic(Network::Regtest, mnemonic, "").unwrap();
    let xpubs = signer.wallet_xpubs();
    let (van, col) = (xpubs.xpub_van.to_string(), xpubs.xpub_col.to_string());
    let keys = WalletKeys::parse(&van, &col, &xpubs.master_fingerprint.to_string(), Network::Regtest).unwrap();
    (signer, keys)
}

async fn pair() -> Pair {
    let clock = Clock::manual(Timestamp::from_millis(i64::try_from(START).unwrap() * 1_000));
    let (chain, world) = (Arc::new(FakeChain::new()), World::new(clock.clone()));
    let engine = || FakeEngine::new(Arc::clone(&world), chain.clone());
    let (signer, one) = wallet("split capable text loop dream live outside suspect eight carry fine relax");
    let (_, other) = wallet(&format!("{}about", "abandon ".repeat(11)));
    let engines = [engine(), engine()];
    for (keys, engine) in [&one, &other].into_iter().zip(&engines) {
        for derived in keys.scripts(Account::Colored, 0..2) {
            chain.pay(&derived.script, Sat::literal(5_000)).unwrap();
        }
        chain.mine(1);
        engine.learn_coins(keys, 2).await.unwrap();
    }
    let new = NewAsset { ticker: "GOLD".to_owned(), name: "Gold".to_owned(), precision: 0, amounts: vec![units(100)] };
    let asset = engines[0].issue(&one, new).await.unwrap().id;
    Pair { chain, clock, engines, keys: [one, other], signer, asset }
}

impl Pair {
    async fn invoice(&self, payee: usize, onto: Onto, min_confirmations: u8) -> Receive {
        let new = NewReceive {
            onto,
            asset: None,
            amount: Some(units(7)),
            expires_at: START + HOUR,
            min_confirmations,
            endpoints: vec!["rpc://127.0.0.1:3000/a".to_owned(), "rpc://127.0.0.1:3000/b".to_owned()],
        };
        self.engines[payee].receive(&self.keys[payee], new).await.unwrap()
    }

    /// The first wallet pays an invoice, up to the consignment.
    async fn consigned(&self, to: &Receive) -> Vec<u8> {
        let witness = self.engines[0].read_invoice(&to.invoice).unwrap().script.map(|_| Sat::literal(1_000));
        let recipient = Recipient { asset: self.asset.clone(), id: to.recipient.clone(), amount: units(7), witness };
        let (fee_rate, expires_at) = (FeeRate::from_sat_per_vb(2), START + HOUR);
        let new = NewTransfer { recipients: vec![recipient], fee_rate, min_confirmations: 1, expires_at };
        let begun = self.engines[0].begin_transfer(&self.keys[0], new).await.unwrap();
        let unsigned = self.engines[0].end_transfer(&self.keys[0], &begun.psbt).await;
        assert!(matches!(unsigned, Err(AssetError::Refused(Refusal::Invalid { what: "psbt", .. }))), "{unsigned:?}");
        let mut psbt = Psbt::from_str(&begun.psbt.to_string()).unwrap();
        self.signer.sign_within(&mut psbt, &Limits::default()).unwrap();
        self.engines[0].end_transfer(&self.keys[0], &psbt).await.unwrap().remove(0).bytes
    }

    async fn look_at(&self, to: &Receive, bytes: &[u8]) -> Verdict {
        self.engines[1].accept(&self.keys[1], &to.recipient, bytes.to_vec()).await.unwrap()
    }

    async fn status(&self, of: usize, recipient: &str) -> TransferStatus {
        let all = self.engines[of].transfers(&self.keys[of]).await.unwrap();
        all.into_iter().find(|one| one.recipient.as_deref() == Some(recipient)).unwrap().status
    }

    async fn settled(&self, of: usize) -> Amount {
        self.engines[of].refresh(&self.keys[of]).await.unwrap();
        sum(self.engines[of].assets(&self.keys[of]).await.unwrap().into_iter().map(|asset| asset.balance.settled))
    }
}

#[tokio::test]
async fn engines_that_share_a_world_pay_each_other() {
    let it = pair().await;
    for onto in [Onto::OwnCoin, Onto::NewCoin] {
        let to = it.invoice(1, onto, 1).await;
        let bytes = it.consigned(&to).await;
        assert_eq!(it.look_at(&to, &bytes).await, Verdict::Accepted);
        it.engines[0].acknowledged(&it.keys[0], &to.recipient).await.unwrap();
        assert_eq!(it.chain.mempool_ids().len(), 1);
        it.chain.mine(1);
        let both = (it.settled(0).await, it.settled(1).await);
        assert_eq!(sum([both.0, both.1]), units(100));
    }
    assert_eq!(it.settled(1).await, units(14));
}

#[tokio::test]
async fn a_consignment_that_no_engine_made_is_refused() {
    let it = pair().await;
    let to = it.invoice(1, Onto::OwnCoin, 1).await;
    let bytes = it.consigned(&to).await;
    let forged = String::from_utf8(bytes.clone()).unwrap().replace("\"amount\":7", "\"amount\":8");
    assert_ne!(forged.as_bytes(), bytes);
    assert!(matches!(it.look_at(&to, forged.as_bytes()).await, Verdict::Refused { .. }));
    let other = it.invoice(1, Onto::OwnCoin, 1).await;
    assert!(matches!(it.look_at(&other, &bytes).await, Verdict::Refused { .. }));
    assert_eq!(it.look_at(&to, &bytes).await, Verdict::Accepted);
    assert_eq!(it.look_at(&to, b"nothing").await, Verdict::Accepted);
}

#[tokio::test]
async fn a_history_that_is_too_young_is_not_taken_yet() {
    let it = pair().await;
    let own = it.invoice(0, Onto::OwnCoin, 1).await;
    let bytes = it.consigned(&own).await;
    it.engines[0].accept(&it.keys[0], &own.recipient, bytes).await.unwrap();
    it.engines[0].acknowledged(&it.keys[0], &own.recipient).await.unwrap();
    it.chain.mine(1);
    assert_eq!(it.settled(0).await, units(100));
    let to = it.invoice(1, Onto::NewCoin, 2).await;
    let bytes = it.consigned(&to).await;
    assert_eq!(it.look_at(&to, &bytes).await, Verdict::NotYet);
    it.chain.mine(1);
    assert_eq!(it.look_at(&to, &bytes).await, Verdict::Accepted);
}

#[tokio::test]
async fn what_is_acknowledged_too_late_is_given_up() {
    let it = pair().await;
    let to = it.invoice(1, Onto::OwnCoin, 1).await;
    let bytes = it.consigned(&to).await;
    assert_eq!(it.look_at(&to, &bytes).await, Verdict::Accepted);
    it.clock.advance(Duration::from_secs(HOUR));
    it.engines[0].acknowledged(&it.keys[0], &to.recipient).await.unwrap();
    assert_eq!(it.status(0, &to.recipient).await, TransferStatus::Failed);
    assert!(it.chain.mempool_ids().is_empty());
    let all = it.engines[0].assets(&it.keys[0]).await.unwrap();
    assert_eq!(all[0].balance.spendable, units(100));
}

#[tokio::test]
async fn a_broadcast_that_fails_is_tried_again_with_the_next_word() {
    let it = pair().await;
    let to = it.invoice(1, Onto::OwnCoin, 1).await;
    let bytes = it.consigned(&to).await;
    it.look_at(&to, &bytes).await;
    it.chain.refuse_broadcast(Some("not now"));
    let refused = it.engines[0].acknowledged(&it.keys[0], &to.recipient).await;
    assert!(matches!(refused, Err(AssetError::Port(_))), "{refused:?}");
    it.chain.refuse_broadcast(None);
    it.engines[0].acknowledged(&it.keys[0], &to.recipient).await.unwrap();
    assert_eq!(it.status(0, &to.recipient).await, TransferStatus::WaitingConfirmations);
    assert_eq!(it.chain.mempool_ids().len(), 1);
}

#[tokio::test]
async fn an_invoice_says_what_was_asked_for() {
    let it = pair().await;
    let read = it.engines[0].read_invoice(&it.invoice(1, Onto::NewCoin, 1).await.invoice).unwrap();
    assert_eq!((read.onto, read.amount, read.network), (Onto::NewCoin, Some(units(7)), Network::Regtest));
    assert_eq!((read.expires_at, read.endpoints.len()), (Some(START + HOUR), 2));
    assert_eq!(read.script, Some(it.keys[1].scripts(Account::Colored, 2..3).remove(0).script));
    for bad in ["", "rgb:", "rgb:~/7/regtest:utxob:00?expiry=1&endpoints=", "rgb:~/x/y?expiry=&endpoints=", "bitcoin:1"]
    {
        assert!(it.engines[0].read_invoice(bad).is_err(), "{bad}");
    }
}
