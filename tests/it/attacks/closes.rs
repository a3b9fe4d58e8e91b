//! Channels that a peer ends as it must not, with money in them: the books are exact afterwards, and nobody is stopped.

use serde_json::json;
use sluice::domain::lightning::Preimage;
use sluice::ports::lightning::{Asked, CloseHow};

use super::till::{CAPACITY, Till};
use crate::harness::lightning::sat;
use crate::harness::peer::{LdkPeer, eventually, eventually_shown};

/// What closing and sweeping may cost, all together.
const ONCHAIN_FEES: u64 = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_broadcasts_a_commitment_that_it_has_revoked() {
    let Some(till) = Till::open(1, |_| {}).await else { return };
    till.is_paid(sat(100_000)).await;
    assert_eq!(till.hostile.call("remember", json!({})).await, 1);
    till.is_paid(sat(250_000)).await;
    let before = till.node.balance().await.expect("an answer");
    let ours = before.channels.base_units() / 1_000;
    assert_eq!(till.suspended().await.len(), 0);

    till.hostile.call("cheat", json!({})).await;
    till.something_waits().await;
    till.until_over(6).await;

    // All that was in the channel is in the node's wallet.
    let after = till.node.balance().await.expect("an answer");
    assert!(after.channels.is_zero() && till.node.channels().await.expect("a list").is_empty());
    let won = after.onchain_confirmed.to_u64() - before.onchain_confirmed.to_u64();
    assert!((CAPACITY.to_u64() - ONCHAIN_FEES..=CAPACITY.to_u64()).contains(&won), "{won}");
    // The wallet has what it was paid. What the peer has lost has no owner until somebody decides.
    assert_eq!(till.purse().await, 350_000_000);
    let items = till.suspended().await;
    let [item] = &items[..] else { panic!("one item: {items:?}") };
    let penalty = u64::try_from(item.amount).expect("it is a gain") / 1_000;
    assert!((CAPACITY.to_u64() - ours - ONCHAIN_FEES..=CAPACITY.to_u64() - ours).contains(&penalty), "{item:?}");
    till.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payee_of_two_parts_claims_one_and_lets_the_other_run_out_on_the_chain() {
    // LDK forgets a payment eight ticks after it is over.
    let Some(till) = Till::open(2, |config| config.ldk.tick_seconds = 2).await else { return };
    // Neither channel has enough for both: then neither has enough for what is paid below.
    till.is_paid(sat(400_000)).await;
    till.is_paid(sat(400_000)).await;
    let silent = &till.theirs().await[1]["id"];
    till.hostile.call("silence", json!({ "channel": silent })).await;
    let invoice = till.hostile.call("invoice", json!({ "msat": 750_000_000_u64 })).await;
    let payment = till.pays(invoice.as_str().expect("a text"), sat(100)).await;
    till.has_paid(&payment).await;
    assert_eq!(till.purse().await, 50_000_000);
    let kept = eventually_shown("one part is claimed, and the other is not", async || {
        let balance = till.node.balance().await.expect("an answer");
        let is_one = (1..750_000_000).contains(&balance.in_flight.base_units());
        if is_one { Ok(balance.in_flight.base_units()) } else { Err(balance) }
    })
    .await;

    // The channel is closed by us when the part's time is over, and it comes back.
    eventually_shown("the channel is closed", async || {
        till.mine(6).await;
        let channels = till.node.channels().await.expect("a list");
        if channels.len() == 1 { Ok(()) } else { Err(channels) }
    })
    .await;
    till.until_over(12).await;
    till.parts_are_over().await;
    till.until_over(1).await;
    assert_eq!(till.purse().await, 50_000_000, "the payee has acknowledged all of it");
    let items = till.suspended().await;
    let all: i64 = items.iter().map(|item| item.amount).sum();
    let all = u64::try_from(all).expect("it is a gain");
    let counted_once = kept - ONCHAIN_FEES * 1_000..=kept;
    assert!(counted_once.contains(&all), "what was not claimed has no owner, and is counted once: {kept} {items:?}");
    till.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payer_of_two_parts_sends_each_of_them_twice() {
    let Some(till) = Till::open(1, |_| {}).await else { return };
    let out = async || till.theirs().await[0]["out_msat"].as_u64().expect("a number");
    let before = out().await;
    let (part, total) = (sat(10_000), sat(20_000));
    let receive = till.invoice(total).await;
    for _ in 0..4 {
        till.part(&receive, part, total).await;
    }
    till.settled(&receive).await;
    // And again, once it is over.
    till.part(&receive, part, total).await;
    till.part(&receive, part, total).await;
    eventually_shown("it has paid once", async || {
        let theirs = till.theirs().await;
        let is_over = theirs[0]["leaving"] == 0 && out().await == before - total.base_units();
        if is_over { Ok(()) } else { Err(theirs) }
    })
    .await;
    assert_eq!(till.purse().await, total.base_units());
    assert!(till.suspended().await.is_empty());
    till.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_peer_takes_a_payment_of_others_only_on_the_chain() {
    let Some(till) = Till::open(1, |config| config.ldk.routing.forward = true).await else { return };
    let Some(next) = LdkPeer::start(&till.bitcoind, "next").await else { return };
    let channel = till.open_channel_to(&next).await;
    let before = till.node.balance().await.expect("an answer");
    let preimage = Preimage::fresh();
    let invoice = next.hold_invoice(Some(sat(50_000)), preimage.hash()).await;
    let asked = json!({ "invoice": invoice, "msat": 50_000_000, "total_msat": 50_000_000 });
    till.hostile.call("pay_part", asked).await;
    eventually("the next peer holds it", async || next.claimable(preimage.hash()).await).await;
    assert!(matches!(till.node.close_channel(&channel, CloseHow::Force).await, Ok(Asked::Done(()))));
    till.something_waits().await;
    till.mine(1).await;
    next.sync().await;
    next.claim(preimage).await;
    till.something_waits().await;
    eventually_shown("the payer has paid", async || {
        till.mine(1).await;
        next.sync().await;
        let ended = till.hostile.call("ended", json!({})).await;
        if ended[preimage.hash().to_string()] == "sent" { Ok(()) } else { Err(ended) }
    })
    .await;
    till.until_over(12).await;
    // What came in is more than what went out, and none of it is anybody's but the operator's.
    let after = till.node.balance().await.expect("an answer");
    assert!(after.channels < before.channels && after.closing == before.closing);
    assert!(till.suspended().await.is_empty(), "{:?}", till.suspended().await);
    assert_eq!(till.purse().await, 0);
    till.close().await;
}
