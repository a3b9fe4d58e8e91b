//! Somebody finds keys whose wallet has the id of another one: an id is 64 bits of a hash, so that is work and no luck.
//!
//! No test can do that work. A row whose keys were changed in the database is the same sight: headers, and under their id another wallet.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use sluice::domain::pay::Door;
use sluice::domain::wallet::Account;
use sluice::flows::{Code, pay_invoice, register, withdraw};
use sluice::money::Sat;
use sluice::store::{StoreError, Tx, Write};

use crate::harness::gateway::Gateway;
use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Database, Rig, on_both, stranger, wanted};

/// Puts the keys of one wallet under the id of another.
fn collide(id_of: &Client, keys_of: &Client) -> String {
    format!(
        "UPDATE wallets SET xpub_van = '{}', xpub_col = '{}', fingerprint = '{}' WHERE id = '{}'",
        keys_of.keys.xpub(Account::Vanilla),
        keys_of.keys.xpub(Account::Colored),
        keys_of.keys.fingerprint(),
        id_of.keys.id()
    )
}

struct Sql(String);

#[async_trait]
impl Write for Sql {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        sqlx::query(sqlx::AssertSqlSafe(self.0.clone())).execute(tx.conn()).await?;
        Ok(())
    }
}

on_both!(keys_with_the_id_of_another_wallet_consent_to_spend_its_money, async |rig: Rig| {
    let (thief, victim) = (Client::number(1), Client::number(2));
    rig.register(&thief).await;
    rig.funded_offchain(&thief, sat(100_000)).await;
    let (invoice, _) = rig.lightning.shop_invoice(Some(sat(10_000)));
    let pay = rig.begin_pay(&thief, &invoice, None).await.expect("it begins");
    let chain = Arc::clone(&rig.chain);
    rig.lightning.node.send_through(move |script, amount| chain.pay(script, amount).expect("the fake pays"));
    rig.lightning.node.fund(Sat::literal(500_000));
    rig.lightning.network.mine(1);
    let leave = withdraw::begin(&rig.flows, &thief.keys, wanted(&stranger(), 20_000), None).await.expect("it begins");
    // From here on the money belongs to the victim's keys, and the thief's headers have its id.
    rig.sql(&collide(&thief, &victim)).await;
    let is_refused = |error: sluice::flows::Error| assert_eq!(error.code(), Code::InvalidKeys, "{error}");
    is_refused(register::require(&rig.flows, &thief.keys).await.expect_err("these are not its keys"));
    is_refused(register::register(&rig.flows, &thief.keys, None).await.expect_err("nor do they register"));
    let signed = thief.sign(&pay.psbt);
    let end = pay_invoice::end(&rig.flows, &thief.keys, Door::PayInvoice, &signed).await;
    is_refused(end.expect_err("nor do they consent to a payment"));
    let end = withdraw::end(&rig.flows, &thief.keys, &thief.sign(&leave.psbt)).await;
    is_refused(end.expect_err("nor to a withdrawal"));
    assert_eq!(rig.payment_state(&thief, pay.request).await, "awaiting_signature");
    assert_eq!(rig.lightning.node.paid().0, 0, "the node was asked to pay");
    rig.sql(&collide(&thief, &thief)).await;
    rig.end_pay(&thief, &pay).await.expect("its own keys do");
    rig.audit().await;
});

on_both!(keys_with_the_id_of_a_released_wallet_take_it_up_again, async |rig: Rig| {
    let (thief, victim) = (Client::number(1), Client::number(2));
    rig.register(&thief).await;
    rig.release(&thief).await;
    rig.sql(&collide(&thief, &victim)).await;
    let refused = register::register(&rig.flows, &thief.keys, None).await.expect_err("another wallet has this id");
    assert_eq!((refused.code(), refused.field_name()), (Code::InvalidKeys, Some("xpub-van")));
    rig.sql(&collide(&thief, &thief)).await;
    register::register(&rig.flows, &thief.keys, None).await.expect("its own keys do");
    rig.audit().await;
});

// Each header counts: what changes no key makes another id all the same, which is what a search for one would change.
#[tokio::test]
async fn calls_are_made_with_headers_that_only_have_the_id_of_a_wallet() {
    for database in [Database::Sqlite, Database::Postgres] {
        let Some((gateway, _chain)) = Gateway::start_fake_on(database, &[]).await else { continue };
        let caller = gateway.registered(1).await;
        let derived = gateway.row_counts().await;
        for (column, header) in
            [("xpub_van", "xpub-van"), ("xpub_col", "xpub-col"), ("fingerprint", "master-fingerprint")]
        {
            let other = Client::number(2);
            let value = match column {
                "xpub_van" => other.keys.xpub(Account::Vanilla),
                "xpub_col" => other.keys.xpub(Account::Colored),
                _ => other.keys.fingerprint(),
            };
            let id = caller.wallet.keys.id();
            let change = format!("UPDATE wallets SET {column} = '{value}' WHERE id = '{id}'");
            gateway.flows().store().write(Sql(change)).await.expect("it is written");
            for path in ["/wallet/btcbalance", "/wallet/address", "/wallet/register"] {
                let refused = caller.post_empty(path).await.refused(422, "invalid_keys");
                assert_eq!(refused["field"], header, "{path}");
            }
            caller.post("/lightning/onchain-receive", json!({})).await.refused(422, "invalid_keys");
            caller.get("/deposits").await.refused(422, "invalid_keys");
            let back = collide(&caller.wallet, &caller.wallet);
            gateway.flows().store().write(Sql(back)).await.expect("it is written");
            caller.post_empty("/wallet/btcbalance").await.ok();
        }
        assert_eq!(gateway.row_counts().await, derived, "nothing was derived, issued or begun");
        gateway.stop().await;
    }
}
