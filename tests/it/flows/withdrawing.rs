//! Off-chain money that leaves on-chain: held with its ceiling, sent once, charged what it really cost.

use std::sync::Arc;

use futures::future::join_all;
use sluice::chain::fake::Reorged;
use sluice::connectors::fake::Fault;
use sluice::domain::withdraw::{State, Withdraw};
use sluice::flows::send::{BeginSend, Begun, Source};
use sluice::flows::settle::{self, BeginSettle};
use sluice::flows::{BodyHash, CloseChannels, Code, Error, Idempotency, Policy, WithdrawPolicy, withdraw};
use sluice::ids::RequestId;
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::LightningNode;
use sluice::store::requests::Filter;

use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Rig, on_both, policy, stranger, unsigned, wanted};

/// A wallet with off-chain money, and a node with coins of its own.
async fn start(rig: &Rig, offchain: u64, reserve: u64) -> Client {
    let client = Client::number(1);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(offchain)).await;
    let chain = Arc::clone(&rig.chain);
    rig.lightning.node.send_through(move |script, amount| chain.pay(script, amount).expect("the fake pays"));
    refill(rig, reserve);
    client
}

fn refill(rig: &Rig, sats: u64) {
    rig.lightning.node.fund(Sat::new(sats).expect("so many bitcoins exist"));
    rig.lightning.network.mine(1);
}

async fn begin(rig: &Rig, client: &Client, wanted: BeginSend) -> Result<Begun, Error> {
    withdraw::begin_either(&rig.flows, &client.keys, Some(Source::Offchain), wanted, None).await
}

async fn end(rig: &Rig, client: &Client, begun: &Begun) -> Result<Withdraw, Error> {
    let ended = withdraw::end(&rig.flows, &client.keys, &client.sign(&begun.psbt)).await?;
    Ok(ended.expect("it is a withdrawal").machine)
}

async fn look(rig: &Rig, client: &Client, id: RequestId) -> Withdraw {
    let found = withdraw::find(&rig.flows, &client.keys.id(), id).await.expect("the store answers");
    found.expect("it is known").machine
}

async fn cancel(rig: &Rig, client: &Client, id: RequestId) -> Result<(), Error> {
    withdraw::cancel(&rig.flows, &client.keys.id(), id).await.map(|found| assert!(found.is_some()))
}

async fn onchain(rig: &Rig) -> u64 {
    rig.lightning.node.balance().await.expect("a balance").onchain_confirmed.to_u64()
}

on_both!(the_wallet_pays_what_it_really_cost, async |rig: Rig| {
    let client = start(&rig, 200_000, 500_000).await;
    let begun = begin(&rig, &client, wanted(&stranger(), 50_000)).await.expect("it begins");
    assert_eq!(begun.source, Source::Offchain);
    let message = begun.message.clone().expect("it says what it is");
    assert!(message.contains("kind: onchain_send") && message.contains(&stranger().to_string()), "{message}");
    assert_eq!(rig.available(&client).await, (150_000 - begun.fee.to_u64()) * 1_000, "the ceiling is held, too");
    let sent = end(&rig, &client, &begun).await.expect("it ends");
    let State::Broadcast { txid, fee } = sent.state else { panic!("{sent:?}") };
    assert!(fee < begun.fee);
    assert_eq!(rig.available(&client).await, (150_000 - fee.to_u64()) * 1_000);
    assert_eq!(onchain(&rig).await, 450_000 - fee.to_u64());
    let paid = rig.chain.transaction(txid).expect("it is out");
    assert!(
        paid.output.iter().any(|out| out.value.to_sat() == 50_000 && out.script_pubkey == stranger().script_pubkey())
    );
    rig.mine(1).await;
    assert!(matches!(look(&rig, &client, begun.request).await.state, State::Confirmed { txid: t, .. } if t == txid));
    assert_eq!(end(&rig, &client, &begun).await.expect("said before").txid(), Some(txid));
    rig.mine(1).await;
    rig.audit_exactly().await;
});

on_both!(the_fee_may_be_taken_from_the_amount, async |rig: Rig| {
    let client = start(&rig, 50_000, 500_000).await;
    let all = BeginSend { deduct_fee: true, ..wanted(&stranger(), 50_000) };
    let begun = begin(&rig, &client, all).await.expect("it begins");
    assert_eq!(rig.available(&client).await, 0);
    let sent = end(&rig, &client, &begun).await.expect("it ends");
    assert_eq!(sent.terms.amount_sent.to_u64(), 50_000 - begun.fee.to_u64());
    let back = begun.fee.to_u64() - sent.fee().expect("it is out").to_u64();
    assert_eq!(rig.available(&client).await, back * 1_000, "what the ceiling was too high is given back");
    rig.mine(1).await;
    rig.audit_exactly().await;
});

on_both!(offchain_money_is_never_taken_by_accident, async |rig: Rig| {
    let client = start(&rig, 200_000, 500_000).await;
    let address = rig.address(&client).await;
    rig.pay_confirmed(&address, 60_000).await;
    let either = |sats| withdraw::begin_either(&rig.flows, &client.keys, None, wanted(&stranger(), sats), None);
    let coins = either(20_000).await.expect("it begins");
    assert_eq!(coins.source, Source::Onchain);
    let leased = either(20_000).await.expect_err("its only coin is leased");
    assert_eq!(leased.code(), Code::CoinsLeased, "what is on-chain would cover it, and is not free");
    let more = either(100_000).await.expect("it begins");
    assert_eq!(more.source, Source::Offchain);
    let neither = either(180_000).await.expect_err("neither covers it");
    assert_eq!(neither.code(), Code::InsufficientFunds);
    let onchain =
        withdraw::begin_either(&rig.flows, &client.keys, Some(Source::Onchain), wanted(&stranger(), 100_000), None);
    assert_eq!(onchain.await.expect_err("not on-chain").code(), Code::InsufficientFunds);
    rig.audit().await;
});

on_both!(a_low_reserve_refuses_a_begin_and_queues_an_end, async |rig: Rig| {
    let client = start(&rig, 200_000, 60_000).await;
    let refused = begin(&rig, &client, wanted(&stranger(), 100_000)).await.expect_err("the node has less");
    assert_eq!(refused.code(), Code::ReserveLow);
    let first = begin(&rig, &client, wanted(&stranger(), 50_000)).await.expect("it begins");
    let second = begin(&rig, &client, wanted(&stranger(), 50_000)).await.expect("it begins");
    end(&rig, &client, &first).await.expect("it ends");
    let queued = end(&rig, &client, &second).await.expect("it is accepted");
    assert!(matches!(queued.state, State::Queued { .. }), "{queued:?}");
    rig.audit().await;
    rig.wait(31).await;
    assert!(matches!(look(&rig, &client, second.request).await.state, State::Queued { .. }));
    refill(&rig, 100_000);
    rig.mine(1).await;
    assert!(look(&rig, &client, second.request).await.txid().is_some(), "a block has it tried again");
    let late = cancel(&rig, &client, second.request).await.expect_err("it is out");
    assert_eq!(late.code(), Code::NotCancellable);
    rig.mine(1).await;
    rig.audit_exactly().await;
});

on_both!(what_waits_is_taken_back, async |rig: Rig| {
    let client = start(&rig, 200_000, 60_000).await;
    let first = begin(&rig, &client, wanted(&stranger(), 50_000)).await.expect("it begins");
    let second = begin(&rig, &client, wanted(&stranger(), 50_000)).await.expect("it begins");
    let unsigned = begin(&rig, &client, wanted(&stranger(), 10_000)).await.expect("it begins");
    end(&rig, &client, &first).await.expect("it ends");
    end(&rig, &client, &second).await.expect("it is accepted");
    let spent = 50_000 + look(&rig, &client, first.request).await.fee().expect("it is out").to_u64();
    for request in [second.request, unsigned.request] {
        cancel(&rig, &client, request).await.expect("it is cancelled");
        cancel(&rig, &client, request).await.expect("twice is once");
    }
    assert_eq!(rig.available(&client).await, (200_000 - spent) * 1_000);
    refill(&rig, 500_000);
    rig.mine(1).await;
    rig.wait(31).await;
    assert_eq!(look(&rig, &client, second.request).await.state, State::Cancelled);
    let late = end(&rig, &client, &unsigned).await.expect("the state is the answer");
    assert_eq!(late.state, State::Cancelled);
    assert_eq!(rig.available(&client).await, (200_000 - spent) * 1_000);
    rig.audit().await;
});

on_both!(a_reorganisation_moves_no_money, async |rig: Rig| {
    let client = start(&rig, 200_000, 500_000).await;
    let begun = begin(&rig, &client, wanted(&stranger(), 50_000)).await.expect("it begins");
    end(&rig, &client, &begun).await.expect("it ends");
    let left = rig.available(&client).await;
    for depth in 1..=3 {
        rig.mine(depth).await;
        assert!(matches!(look(&rig, &client, begun.request).await.state, State::Confirmed { .. }));
        rig.chain.reorg(depth, depth + 1, Reorged::BackInMempool).expect("a reorganisation");
        rig.settle().await;
        assert!(matches!(look(&rig, &client, begun.request).await.state, State::Broadcast { .. }));
    }
    rig.mine(1).await;
    assert!(matches!(look(&rig, &client, begun.request).await.state, State::Confirmed { .. }));
    assert_eq!(rig.available(&client).await, left);
    rig.audit_exactly().await;
});

on_both!(sixty_four_ends_are_one_send, async |rig: Rig| {
    let client = start(&rig, 200_000, 500_000).await;
    let begun = begin(&rig, &client, wanted(&stranger(), 50_000)).await.expect("it begins");
    let ended = join_all((0..64).map(|_| end(&rig, &client, &begun))).await;
    let txids: Vec<_> = ended.into_iter().filter_map(|ended| ended.expect("it ends").txid()).collect();
    assert!(!txids.is_empty() && txids.iter().all(|txid| *txid == txids[0]));
    assert_eq!(onchain(&rig).await / 1_000, 449, "the node sent once");
    rig.mine(1).await;
    rig.audit_exactly().await;
});

on_both!(begins_share_one_balance, async |rig: Rig| {
    let client = start(&rig, 51_000, 500_000).await;
    let begun = join_all((0..64).map(|_| begin(&rig, &client, wanted(&stranger(), 50_000)))).await;
    let (begun, refused): (Vec<_>, Vec<_>) = begun.into_iter().partition(Result::is_ok);
    assert_eq!(begun.len(), 1);
    assert!(refused.iter().all(|refused| refused.as_ref().is_err_and(|error| error.code() == Code::InsufficientFunds)));
    rig.wait(3_600).await;
    assert_eq!(rig.available(&client).await, 51_000_000, "nobody consented");
    rig.audit().await;
});

on_both!(a_lost_answer_is_found_again_even_behind_a_block, async |rig: Rig| {
    let client = start(&rig, 200_000, 500_000).await;
    for blocks in 0..3 {
        let begun = begin(&rig, &client, wanted(&stranger(), 50_000)).await.expect("it begins");
        let before = onchain(&rig).await;
        rig.lightning.node.set_fault(Fault::AnswerLost);
        // It was sent, and nobody knows.
        let ended = end(&rig, &client, &begun).await.expect("the consent is good");
        assert!(matches!(ended.state, State::Requested { .. }), "{ended:?}");
        rig.chain.mine(blocks);
        rig.follow().await;
        let late = cancel(&rig, &client, begun.request).await.expect_err("the node may have sent it");
        assert_eq!(late.code(), Code::NotCancellable);
        rig.lightning.node.set_fault(None);
        rig.wait(31).await;
        let found = look(&rig, &client, begun.request).await;
        assert!(found.txid().is_some() && found.height().is_some() == (blocks > 0), "{found:?}");
        rig.mine(1).await;
        assert!(matches!(look(&rig, &client, begun.request).await.state, State::Confirmed { .. }));
        assert_eq!(before - onchain(&rig).await, 50_000 + found.fee().expect("it is out").to_u64(), "sent once");
    }
    rig.mine(1).await;
    rig.audit_exactly().await;
});

on_both!(addresses_of_the_node_are_refused, async |rig: Rig| {
    let client = start(&rig, 200_000, 500_000).await;
    let own = rig.lightning.node.onchain_address().await.expect("an address");
    let refused = begin(&rig, &client, wanted(&own, 50_000)).await.expect_err("it is the node's");
    assert_eq!(refused.code(), Code::InvalidAddress);
    let address = rig.address(&client).await;
    rig.pay_confirmed(&address, 60_000).await;
    let settle = BeginSettle { amount: None, fee_rate: 2, expires_in_seconds: None, reference: None };
    let begun = settle::begin(&rig.flows, &client.keys, settle, None).await.expect("it begins");
    let bound =
        bitcoin::Address::from_script(&unsigned(&begun.psbt).output[0].script_pubkey, bitcoin::Network::Regtest);
    let refused = begin(&rig, &client, wanted(&bound.unwrap(), 50_000)).await.expect_err("it is bound");
    assert_eq!(refused.code(), Code::InvalidAddress);
    rig.audit().await;
});

on_both!(a_consent_is_good_for_its_own_withdrawal_only, async |rig: Rig| {
    let client = start(&rig, 200_000, 500_000).await;
    let other = Client::number(2);
    rig.register(&other).await;
    let first = begin(&rig, &client, wanted(&stranger(), 50_000)).await.expect("it begins");
    let second = begin(&rig, &client, wanted(&stranger(), 60_000)).await.expect("it begins");
    let (one, two) = (client.sign(&first.psbt), client.sign(&second.psbt));
    let foreign = withdraw::end(&rig.flows, &other.keys, &one).await.expect("the store answers");
    assert!(foreign.is_none(), "to another wallet it is unknown");
    let wrong_door = rig.end_pay_signed(&client, &one).await.expect_err("it is no payment");
    assert_eq!(wrong_door.code(), Code::PsbtUnknown);
    // The signature of one under the message of the other.
    let (mut forged, good) = (one.parse::<bitcoin::Psbt>().unwrap(), two.parse::<bitcoin::Psbt>().unwrap());
    forged.inputs[0].final_script_witness.clone_from(&good.inputs[0].final_script_witness);
    let refused = withdraw::end(&rig.flows, &client.keys, &forged.to_string()).await.expect_err("it is forged");
    assert_eq!(refused.code(), Code::InvalidSignature);
    let unsigned = withdraw::end(&rig.flows, &client.keys, &first.psbt).await.expect_err("nobody signed");
    assert_eq!(unsigned.code(), Code::PsbtNotSigned);
    assert_eq!(onchain(&rig).await, 500_000);
    rig.audit().await;
});

on_both!(a_key_is_one_withdrawal, async |rig: Rig| {
    let client = start(&rig, 200_000, 500_000).await;
    let key = |body: &str| Some(Idempotency { key: "payout-1".to_owned(), body_hash: BodyHash::of_bytes(body) });
    let again = |body: &'static str| {
        withdraw::begin_either(&rig.flows, &client.keys, None, wanted(&stranger(), 50_000), key(body))
    };
    let all = join_all((0..8).map(|_| again("a"))).await;
    let psbts: Vec<_> = all.into_iter().map(|begun| begun.expect("the same one").psbt).collect();
    assert!(psbts.iter().all(|psbt| *psbt == psbts[0]));
    assert_eq!(again("b").await.expect_err("another body").code(), Code::IdempotencyMismatch);
    assert_eq!(
        rig.offchain(&client).await.held,
        Amount::from_sat(Sat::literal(50_000)).checked_add(fee_held(&rig, &client).await).unwrap()
    );
    rig.audit().await;
});

async fn fee_held(rig: &Rig, client: &Client) -> Amount {
    let all = withdraw::page(&rig.flows, &client.keys.id(), &Filter::default(), None, 10).await.expect("a page");
    assert_eq!(all.len(), 1);
    Amount::from_sat(all[0].machine.terms.max_fee)
}

/// What the operator has, less what it owes, in millisatoshi.
async fn operators_own(rig: &Rig, client: &Client) -> i64 {
    let node = rig.lightning.node.balance().await.expect("a balance");
    let onchain = Amount::from_sat(node.onchain_confirmed).checked_add(Amount::from_sat(node.onchain_unconfirmed));
    let has = [node.channels, node.in_flight, onchain.expect("it adds up")];
    let has: i64 = has.iter().map(|amount| amount.as_bigint()).sum();
    has - rig.offchain(client).await.total.as_bigint()
}

on_both!(a_hundred_times_in_over_lightning_and_out_on_chain_costs_the_operator_nothing, async |rig: Rig| {
    let client = start(&rig, 100_000, 2_000_000).await;
    let before = operators_own(&rig, &client).await;
    for round in 0..100 {
        let receive = rig.invoice(&client, Some(sat(10_000))).await;
        rig.lightning.shop_pays(&receive.machine.invoice, receive.machine.hash, sat(10_000)).await;
        rig.settle().await;
        let begun = begin(&rig, &client, wanted(&stranger(), 9_000)).await.expect("it begins");
        end(&rig, &client, &begun).await.expect("it ends");
        rig.mine(1).await;
        assert_eq!(operators_own(&rig, &client).await, before, "round {round}");
    }
    rig.audit().await;
});

fn one_close_a_day() -> Policy {
    let withdraw = WithdrawPolicy { close_channels: CloseChannels::Cooperative, closes_per_day: 1 };
    Policy { withdraw, ..policy() }
}

on_both!(channels_are_closed_one_at_a_time_and_so_many_a_day, one_close_a_day(), async |rig: Rig| {
    let client = start(&rig, 600_000, 60_000).await;
    let far = rig.lightning.network.add_node();
    for side in [200_000, 450_000] {
        let side = Sat::literal(side);
        rig.lightning.network.open(&rig.lightning.node, &far, side, side);
    }
    let first = begin(&rig, &client, wanted(&stranger(), 150_000)).await.expect("a channel can pay it");
    let second = begin(&rig, &client, wanted(&stranger(), 100_000)).await.expect("a channel can pay it");
    let closing = end(&rig, &client, &first).await.expect("it is accepted");
    assert!(matches!(closing.state, State::WaitingClose { .. }) && closing.closes.len() == 1, "{closing:?}");
    let waiting = end(&rig, &client, &second).await.expect("it is accepted");
    assert!(matches!(waiting.state, State::Queued { .. }) && waiting.closes.is_empty(), "{waiting:?}");
    rig.audit().await;
    // Its owner does not want it any more. The channel is closed all the same, and counts for this day.
    cancel(&rig, &client, first.request).await.expect("nothing was sent");
    rig.wait(31).await;
    assert!(matches!(look(&rig, &client, second.request).await.state, State::Queued { .. }));
    assert_eq!(rig.lightning.node.channels().await.expect("a list").len(), 2);
    // What came out of it is enough for the other.
    rig.lightning.network.mine(1);
    rig.mine(1).await;
    assert!(look(&rig, &client, second.request).await.txid().is_some());
    let third = begin(&rig, &client, wanted(&stranger(), 450_000)).await.expect("a channel can pay it");
    let waiting = end(&rig, &client, &third).await.expect("it is accepted");
    assert!(matches!(waiting.state, State::Queued { .. }), "one was closed today: {waiting:?}");
    rig.wait(24 * 60 * 60).await;
    assert!(matches!(look(&rig, &client, third.request).await.state, State::WaitingClose { .. }));
    rig.audit().await;
});
