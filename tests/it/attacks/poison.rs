//! One row that makes no sense among many: it must not keep the others from their turn.

use sluice::ids::RequestId;

use crate::harness::rig::{Client, Rig, on_both, stranger};

const MANY: usize = 20;
const COIN: u64 = 20_000;

/// A wallet with as many sends as coins, of which one is to go wrong: the first that whoever does them in order meets.
async fn begun(rig: &Rig) -> (Client, Vec<(RequestId, String)>) {
    let client = Client::number(1);
    rig.funded_with(&client, &[COIN; MANY]).await;
    let mut all = Vec::new();
    for _ in 0..MANY {
        let begun = rig.begin(&client, &stranger(), COIN / 2).await.expect("it begins");
        all.push((begun.request, begun.psbt));
    }
    (client, all)
}

async fn poison(rig: &Rig, id: RequestId) {
    rig.sql(&format!("UPDATE requests SET data = '!' || data WHERE id = '{id}'")).await;
}

async fn heal(rig: &Rig, id: RequestId) {
    rig.sql(&format!("UPDATE requests SET data = SUBSTR(data, 2) WHERE id = '{id}'")).await;
}

on_both!(one_effect_that_can_not_be_carried_out_does_not_keep_twenty_from_theirs, async |rig: Rig| {
    let (client, all) = begun(&rig).await;
    rig.chain.refuse_broadcast(Some("the mempool is full"));
    for (_, psbt) in &all {
        rig.end(&client, psbt).await.expect("the consent is written down");
    }
    assert_eq!(rig.chain.mempool_ids().len(), 0);
    let bad = all[0].0;
    poison(&rig, bad).await;
    rig.sql("INSERT INTO effects (key, request_id, leased_until, attempts, created_at) SELECT 'broadcast:nonsense', request_id, 0, 0, 0 FROM effects LIMIT 1").await;
    rig.chain.refuse_broadcast(None);
    rig.wait(31).await;
    assert_eq!(rig.chain.mempool_ids().len(), MANY - 1, "the others have gone out");
    heal(&rig, bad).await;
    rig.wait(3_600).await;
    assert_eq!(rig.chain.mempool_ids().len(), MANY, "what was healed goes out, too");
    rig.sql("DELETE FROM effects WHERE key = 'broadcast:nonsense'").await;
    rig.mine(1).await;
    rig.audit().await;
});

on_both!(one_request_that_can_not_expire_does_not_keep_the_coins_of_others, async |rig: Rig| {
    let (client, all) = begun(&rig).await;
    let bad = all[0].0;
    poison(&rig, bad).await;
    rig.wait(3_600).await;
    assert_eq!(rig.spendable(&client).await, COIN * (MANY as u64 - 1), "what the others held is free again");
    heal(&rig, bad).await;
    rig.wait(3_600).await;
    assert_eq!(rig.spendable(&client).await, COIN * MANY as u64);
    rig.audit().await;
});
