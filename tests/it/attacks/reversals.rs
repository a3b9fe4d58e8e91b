//! A wallet whose credit is taken back by a reorganisation in the same moment in which it receives something.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluice::chain::fake::Reorged;
use sluice::domain::Fact;
use sluice::domain::event::payloads::Nothing;
use sluice::flows::settle::{self, BeginSettle};
use sluice::ids::{RequestId, WalletId};
use sluice::ledger::{Account, Kind, Posting, PostingId};
use sluice::money::{Money, Sat};
use sluice::store::books::BookEntry;
use sluice::store::{StoreError, Tx, Write, apply, ledger};
use tokio::sync::Semaphore;

use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Database, Rig, policy};

/// Long enough for a reorganisation that waits for nobody.
const A_WHILE: Duration = Duration::from_secs(2);

/// Gives a wallet something, and keeps the transaction open until it may go on or a while is over.
struct Give {
    wallet: WalletId,
    has_begun: Arc<Semaphore>,
    may_go_on: Arc<Semaphore>,
}

#[async_trait]
impl Write for Give {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let id = RequestId::of_movement("a gift");
        let entry = BookEntry { id, number: None, resolves: None, kind: "gift", data: "{}".to_owned() };
        let posting = Posting {
            id: PostingId::of(id, "gift"),
            request: id,
            debit: Account::Capital,
            credit: Account::Wallet(self.wallet.clone()),
            money: Money::btc(sat(5_000)),
            kind: Kind::Post,
        };
        let told = Fact::WalletRegistered(Nothing {});
        apply::enter(tx, &entry, &[posting], Some(&self.wallet), &told).await?;
        self.has_begun.add_permits(1);
        // Whoever has to wait for this transaction lets the while pass.
        drop(tokio::time::timeout(A_WHILE, self.may_go_on.acquire()).await);
        Ok(())
    }
}

#[tokio::test]
async fn a_wallet_that_receives_while_its_credit_is_taken_back_pays_its_debt() {
    let Some(rig) = Rig::with(Database::Postgres, policy()).await else { return };
    let (debtor, payee) = (Client::number(1), Client::number(2));
    rig.funded(&debtor, 100_000).await;
    rig.register(&payee).await;
    let wanted =
        BeginSettle { amount: Some(Sat::literal(40_000)), fee_rate: 2, expires_in_seconds: None, reference: None };
    let begun = settle::begin(&rig.flows, &debtor.keys, wanted, None).await.expect("it begins");
    settle::end(&rig.flows, &debtor.keys.id(), &debtor.sign(&begun.psbt)).await.expect("it ends");
    rig.mine(1).await;
    let receive = rig.invoice(&payee, Some(sat(40_000))).await;
    let paying = rig.begin_pay(&debtor, &receive.machine.invoice, None).await.expect("it begins");
    rig.end_pay(&debtor, &paying).await.expect("all of it is spent");
    assert_eq!(rig.available(&debtor).await, 0);

    rig.chain.reorg(1, 2, Reorged::Gone).expect("the chain turns round");
    let (has_begun, may_go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let give = Give { wallet: debtor.keys.id(), has_begun: has_begun.clone(), may_go_on: may_go_on.clone() };
    let store = rig.flows.store().clone();
    let giving = tokio::spawn(async move { store.write(give).await });
    drop(has_begun.acquire().await.expect("nobody closes it"));
    rig.follow().await;
    may_go_on.add_permits(1);
    giving.await.expect("it does not panic").expect("it is given");
    let mut conn = rig.flows.store().read().await.expect("a connection");
    let debt = ledger::debt(&mut conn, &debtor.keys.id()).await.expect("a balance");
    drop(conn);
    assert_eq!((rig.available(&debtor).await, debt), (0, sat(35_000)), "what it has pays what it owes");
    rig.audit().await;
}
