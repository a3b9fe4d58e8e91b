//! The node's own money in the books: every movement is entered once, and the audit compares the books with the node to the
//! millisatoshi.

use bitcoin::Address;
use sluice::flows::alarms::{LOOKS, Watch};
use sluice::flows::audit::{self, Report};
use sluice::flows::books::{self, Claimant};
use sluice::flows::{Code, node_admin};
use sluice::ids::RequestId;
use sluice::money::{Amount, FeeRate, Sat};
use sluice::ports::lightning::{Asked, CloseHow, LightningNode, NewChannel, OnchainOrder};
use sluice::store::halts::{self, INSOLVENT};

use crate::harness::lightning::{CHANNEL_SIDE, msat, sat};
use crate::harness::rig::{Client, Rig, on_both, parse_address, stranger};

const SIDE: i64 = CHANNEL_SIDE.as_bigint() * 1_000;
const LONG_ENOUGH: u32 = 200;

/// What an account has, in millisatoshi: credits less debits.
async fn has(rig: &Rig, account: &str) -> i64 {
    let (_, lines) = books::trial_balance(&rig.flows).await.expect("the store answers");
    lines.iter().find(|line| line.account == account).map_or(0, |line| line.total)
}

async fn report(rig: &Rig) -> Report {
    audit::audit(&rig.flows).await.expect("the audit runs")
}

fn broken(report: &Report) -> Vec<&'static str> {
    report.drifts.iter().map(|drift| drift.rule).collect()
}

/// As many looks find this as it takes to be believed, and one more.
async fn look_often(rig: &Rig, found: &Report) {
    let mut watch = Watch::default();
    for _ in 0..=LOOKS {
        watch.react(&rig.flows, found).await.expect("the store is there");
    }
}

async fn reserve_address(rig: &Rig) -> Address {
    parse_address(&node_admin::reserve(&rig.flows).await.expect("a reserve").address)
}

/// Coins of the operator's own, in a block.
async fn top_up(rig: &Rig, sats: u64) {
    rig.lightning.node.fund_address(&reserve_address(rig).await, Sat::literal(sats));
    rig.lightning.network.mine(1);
    rig.settle().await;
}

/// The node's coins go to a stranger in a block, and no request of the gateway knows of it.
async fn send_for_nobody(rig: &Rig, amount: Sat) {
    let (fee_rate, max_fee) = (FeeRate::from_sat_per_vb(1), Sat::literal(1_000));
    let order = OnchainOrder { id: RequestId::fresh(), to: stranger(), amount, fee_rate, max_fee };
    let sent = rig.lightning.node.onchain_send(&order).await;
    assert!(matches!(sent, Ok(Asked::Done(_))), "{sent:?}");
    rig.lightning.network.mine(1);
}

/// A channel of 300,000 sat to somebody else, of which 50,000 are given away.
async fn open(rig: &Rig) -> String {
    let other = rig.lightning.network.add_node();
    rig.lightning.node.connect(other.id(), &other.address()).await.expect("it connects");
    let new = NewChannel { peer: other.id(), amount: Sat::literal(300_000), push: sat(50_000), announced: false };
    let Asked::Done(id) = rig.lightning.node.open_channel(&new).await.expect("an answer") else {
        panic!("it is opened")
    };
    id
}

on_both!(a_channel_is_in_the_books_from_its_opening_to_the_sweep, async |rig: Rig| {
    assert_eq!(has(&rig, "node:channels").await, -SIDE, "what the channel of the rig was opened with");
    assert_eq!(has(&rig, "operator:suspense").await, SIDE, "nobody has said whose it is");
    top_up(&rig, 1_000_000).await;
    assert_eq!((has(&rig, "node:onchain").await, has(&rig, "operator:capital").await), (-1_000_000_000, 1_000_000_000));
    rig.audit_exactly().await;

    let id = open(&rig).await;
    rig.audit_exactly().await;
    rig.lightning.network.mine(6);
    rig.audit_exactly().await;
    assert_eq!(has(&rig, "node:onchain").await, -700_000_000);
    assert_eq!(has(&rig, "node:channels").await, -SIDE - 250_000_000);
    assert_eq!(has(&rig, "operator:capital").await, 950_000_000, "what was given away was the operator's");

    rig.lightning.node.close_channel(&id, CloseHow::Force).await.expect("it closes");
    rig.settle().await;
    assert_eq!((has(&rig, "node:channels").await, has(&rig, "node:closing").await), (-SIDE, -250_000_000));
    rig.lightning.network.mine(LONG_ENOUGH);
    rig.audit_exactly().await;
    assert_eq!((has(&rig, "node:closing").await, has(&rig, "node:onchain").await), (0, -950_000_000));
    rig.audit().await;
});

on_both!(payments_leave_fractions_and_the_books_still_agree, async |rig: Rig| {
    let wallet = Client::number(1);
    rig.register(&wallet).await;
    rig.funded_offchain(&wallet, msat(12_345_678)).await;
    rig.audit_exactly().await;
    let (invoice, preimage) = rig.lightning.shop_invoice(Some(msat(2_000_001)));
    let begun = rig.begin_pay(&wallet, &invoice, None).await.expect("it begins");
    rig.end_pay(&wallet, &begun).await.expect("it ends");
    let flying = report(&rig).await;
    assert_eq!(broken(&flying), [""; 0], "what is under way is a bound, no drift");
    assert!(!flying.pending.is_empty());
    rig.lightning.shop_claims(preimage).await;
    rig.audit_exactly().await;
    rig.lightning.node.close_channel(&rig.lightning.channel, CloseHow::Cooperative).await.expect("it closes");
    rig.lightning.network.mine(1);
    rig.audit_exactly().await;
    assert_eq!(has(&rig, "operator:rounding").await, -677, "a block holds no fractions");
    rig.audit().await;
});

on_both!(a_movement_that_is_not_entered_is_found, async |rig: Rig| {
    let wallet = Client::number(1);
    rig.register(&wallet).await;
    rig.funded_offchain(&wallet, sat(20_000)).await;
    rig.audit_exactly().await;
    let sql = "UPDATE balances SET total = total + 1 WHERE account IN ('node:channels', 'operator:suspense')";
    rig.sql(&sql.replace("+ 1", "+ CASE account WHEN 'node:channels' THEN -1 ELSE 1 END")).await;
    let found = report(&rig).await;
    assert!(broken(&found).contains(&"node_channels_are_what_the_node_says"), "{found:?}");
    look_often(&rig, &found).await;
    let refused = rig.begin_pay(&wallet, &rig.lightning.shop_invoice(Some(sat(1_000))).0, None).await;
    assert_eq!(refused.expect_err("payouts are stopped").code(), Code::PayoutsHalted);
    rig.sql(&sql.replace("+ 1", "- CASE account WHEN 'node:channels' THEN -1 ELSE 1 END")).await;
    rig.clear_halt(halts::AUDIT_DRIFT).await;
    rig.audit().await;
});

on_both!(owing_more_than_there_is_stops_payouts, async |rig: Rig| {
    let wallet = Client::number(1);
    rig.register(&wallet).await;
    rig.funded_offchain(&wallet, sat(20_000)).await;
    // All of it goes away behind the gateway's back: into coins, and from there to a stranger.
    rig.lightning.node.close_channel(&rig.lightning.channel, CloseHow::Cooperative).await.expect("it closes");
    rig.lightning.network.mine(1);
    let gone = Sat::new(CHANNEL_SIDE.to_u64()).expect("an amount");
    send_for_nobody(&rig, gone).await;
    rig.settle().await;
    let found = report(&rig).await;
    assert_eq!(broken(&found), ["what_is_owed_is_covered"], "{found:?}");
    look_often(&rig, &found).await;
    let refused = rig.begin_pay(&wallet, &rig.lightning.shop_invoice(Some(sat(1_000))).0, None).await;
    assert_eq!(refused.expect_err("payouts are stopped").code(), Code::PayoutsHalted);
    // The operator brings the money.
    top_up(&rig, 20_000).await;
    assert!(rig.clear_halt(INSOLVENT).await);
    rig.audit_exactly().await;
});

on_both!(forwarding_is_earned, async |rig: Rig| {
    let far = rig.lightning.network.add_node();
    rig.lightning.network.open(&rig.lightning.node, &far, CHANNEL_SIDE, CHANNEL_SIDE);
    rig.lightning.node.set_fees(Amount::from_sat(Sat::literal(3)), 0);
    let (invoice, preimage) = far.invoice(Some(sat(10_000)), "beyond");
    rig.lightning.shop_pays(&invoice, preimage.hash(), sat(10_000)).await;
    far.claim(preimage.hash(), Some(preimage)).await.expect("it is claimed");
    rig.audit_exactly().await;
    assert_eq!(has(&rig, "operator:routing_fees").await, 3_000);
    rig.audit().await;
});

on_both!(what_nobody_owns_waits_until_somebody_decides, async |rig: Rig| {
    let wallet = Client::number(1);
    rig.register(&wallet).await;
    rig.lightning.node.fund(Sat::literal(7_000));
    rig.lightning.network.mine(1);
    rig.settle().await;
    let items = books::suspended(&rig.flows, None, 10).await.expect("a list");
    assert_eq!(items.iter().map(|item| item.amount).collect::<Vec<_>>(), [SIDE, 7_000_000]);
    let resolve = async |item: &str, to: Claimant| {
        books::resolve(&rig.flows, item.to_owned(), to, "ticket 7".to_owned(), "key".to_owned(), None).await
    };
    let to_nobody = Claimant::Wallet(Client::number(9).keys.id());
    let refused = resolve(&items[1].id, to_nobody).await.expect_err("nobody is that");
    assert_eq!(refused.code(), Code::WalletNotRegistered);
    let done = resolve(&items[1].id, Claimant::Wallet(wallet.keys.id())).await.expect("it is decided");
    assert_eq!(done.amount_msat, 7_000_000);
    assert_eq!(rig.available(&wallet).await, 7_000_000);
    let again = resolve(&items[1].id, Claimant::Capital).await.expect_err("once");
    assert_eq!(again.code(), Code::NotFound);
    resolve(&items[0].id, Claimant::Capital).await.expect("it is decided");
    assert_eq!((has(&rig, "operator:suspense").await, has(&rig, "operator:capital").await), (0, SIDE));
    assert!(books::suspended(&rig.flows, None, 10).await.expect("a list").is_empty());
    send_for_nobody(&rig, Sat::literal(1_000)).await;
    rig.settle().await;
    let loss = books::suspended(&rig.flows, None, 10).await.expect("a list").remove(0);
    assert_eq!(loss.amount, -1_000_000);
    let refused = resolve(&loss.id, Claimant::Wallet(wallet.keys.id())).await.expect_err("no wallet bears it");
    assert_eq!(refused.code(), Code::InvalidRequest);
    resolve(&loss.id, Claimant::Capital).await.expect("the operator bears it");
    rig.audit_exactly().await;
});
