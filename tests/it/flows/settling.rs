//! Coins that become off-chain money: credited once, by what really arrived, and taken back when the chain takes them back.

use futures::future::join_all;
use sluice::chain::fake::Reorged;
use sluice::domain::credit::{Credit, State as CreditState};
use sluice::flows::send::Begun;
use sluice::flows::settle::{self, BeginSettle, Found, Larger, Settle, SettlePolicy};
use sluice::flows::{Code, Error, Policy};
use sluice::money::{Amount, Sat};
use sluice::store::{credits, ledger, requests};

use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Rig, on_both, policy, stranger, unsigned};

fn wanted(amount: Option<u64>) -> BeginSettle {
    let amount = amount.map(|sats| Sat::new(sats).expect("so many bitcoins exist"));
    BeginSettle { amount, fee_rate: 2, expires_in_seconds: None, reference: None }
}

async fn begin(rig: &Rig, client: &Client, amount: Option<u64>) -> Result<Begun, Error> {
    settle::begin(&rig.flows, &client.keys, wanted(amount), None).await
}

async fn settled(rig: &Rig, client: &Client, amount: u64) -> Begun {
    let begun = begin(rig, client, Some(amount)).await.expect("it begins");
    settle::end(&rig.flows, &client.keys.id(), &client.sign(&begun.psbt)).await.expect("it ends");
    rig.settle().await;
    begun
}

async fn look(rig: &Rig, client: &Client, begun: &Begun) -> Settle {
    let found = settle::get(&rig.flows, &client.keys.id(), begun.request).await.expect("the store answers");
    found.expect("the settle is known")
}

async fn found(rig: &Rig, client: &Client) -> Vec<Found> {
    settle::finish(&rig.flows, &client.keys.id()).await.expect("it finishes")
}

async fn debt(rig: &Rig, client: &Client) -> u64 {
    let mut conn = rig.flows.store().read().await.expect("a connection");
    ledger::debt(&mut conn, &client.keys.id()).await.expect("a balance").base_units()
}

async fn credits_of(rig: &Rig, begun: &Begun) -> Vec<Credit> {
    let mut conn = rig.flows.store().read().await.expect("a connection");
    let mut all = Vec::new();
    let txid = unsigned(&begun.psbt).compute_txid();
    for id in credits::of_transaction(&mut conn, txid).await.expect("the store answers") {
        all.push(requests::load::<Credit>(&mut conn, id).await.expect("it reads").expect("it is there").machine);
    }
    all
}

/// Spends off-chain money, to somebody else's wallet of this gateway.
async fn spend_offchain(rig: &Rig, payer: &Client, payee: &Client, amount: Amount) {
    let receive = rig.invoice(payee, Some(amount)).await;
    let begun = rig.begin_pay(payer, &receive.machine.invoice, None).await.expect("it begins");
    rig.end_pay(payer, &begun).await.expect("it ends");
}

on_both!(coins_become_offchain_money_once_they_are_deep_enough, three_deep(), async |rig: Rig| {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    assert_eq!(found(&rig, &client).await, [Found::NeedsSignature(Sat::literal(100_000))]);
    let begun = settled(&rig, &client, 40_000).await;
    let change = 60_000 - begun.fee.to_u64();
    for left in [3, 2, 1] {
        let settle = look(&rig, &client, &begun).await;
        assert_eq!((settle.credited(), settle.credits[0].confirmations_left), (None, left));
        assert_eq!(rig.available(&client).await, 0);
        let pending = Found::Pending { amount: Sat::literal(40_000), confirmations_left: left };
        assert_eq!(found(&rig, &client).await, [pending, Found::NeedsSignature(Sat::new(change).unwrap())]);
        rig.mine(1).await;
    }
    assert_eq!(look(&rig, &client, &begun).await.credited(), Some(Sat::literal(40_000)));
    assert_eq!(rig.available(&client).await, 40_000_000);
    rig.mine(3).await;
    assert_eq!(rig.available(&client).await, 40_000_000, "once");
    rig.audit_exactly().await;
});

fn three_deep() -> Policy {
    let larger = vec![Larger { from_sats: Sat::literal(10_000), confirmations: 3 }];
    Policy { settle: SettlePolicy { confirmations: Some(1), larger }, ..policy() }
}

on_both!(everything_is_what_is_spendable_less_the_fee, async |rig: Rig| {
    let client = Client::number(1);
    rig.funded_with(&client, &[30_000, 20_000]).await;
    let begun = begin(&rig, &client, None).await.expect("it begins");
    settle::end(&rig.flows, &client.keys.id(), &client.sign(&begun.psbt)).await.expect("it ends");
    rig.mine(1).await;
    assert_eq!(rig.available(&client).await, (50_000 - begun.fee.to_u64()) * 1_000);
    assert_eq!(rig.spendable(&client).await, 0);
    let refused = begin(&rig, &client, None).await.expect_err("nothing is left");
    assert_eq!(refused.code(), Code::InsufficientFunds);
    rig.audit_exactly().await;
});

on_both!(whoever_pays_the_bound_address_pays_its_wallet, async |rig: Rig| {
    let (client, other) = (Client::number(1), Client::number(2));
    rig.funded_with(&client, &[50_000, 50_000, 50_000]).await;
    rig.funded(&other, 100_000).await;
    let to = |begun: &Begun| {
        let outputs = unsigned(&begun.psbt).output.into_iter();
        outputs.map(|out| out.script_pubkey).find(|script| script.is_p2wpkh()).expect("the node's output")
    };
    let (first, second) =
        (begin(&rig, &client, Some(5_000)).await.unwrap(), begin(&rig, &other, Some(5_000)).await.unwrap());
    assert_ne!(to(&first), to(&second), "each wallet has its own address");
    let again = begin(&rig, &client, Some(6_000)).await.expect("it begins");
    assert_eq!(to(&first), to(&again), "the address is the same until something came to it");
    // Nobody signs: a stranger pays, twice in one transaction and once more later.
    let script = to(&first);
    let amounts = [(script.clone(), Sat::literal(7_000)), (script.clone(), Sat::literal(8_000))];
    rig.chain.pay_many(&amounts).expect("the fake pays");
    rig.mine(1).await;
    rig.chain.fund_confirmed(&script, Sat::literal(9_000)).expect("the fake pays");
    rig.settle().await;
    assert_eq!((rig.available(&client).await, rig.available(&other).await), (24_000_000, 0));
    let third = begin(&rig, &client, Some(5_000)).await.expect("it begins");
    assert_ne!(to(&third), script, "a used address is not given out again");
    rig.audit_exactly().await;
});

on_both!(a_reorganisation_takes_the_credit_back_and_the_next_block_brings_it_again, async |rig: Rig| {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let begun = settled(&rig, &client, 40_000).await;
    for depth in 1..=4 {
        rig.mine(depth).await;
        assert_eq!(rig.available(&client).await, 40_000_000);
        rig.chain.reorg(depth, depth + 1, Reorged::BackInMempool).expect("a reorganisation");
        rig.settle().await;
        assert_eq!((rig.available(&client).await, debt(&rig, &client).await), (0, 0));
        assert_eq!(credits_of(&rig, &begun).await[0].state, CreditState::Reorged);
    }
    rig.mine(1).await;
    assert_eq!(rig.available(&client).await, 40_000_000);
    assert_eq!(credits_of(&rig, &begun).await[0].times, 5);
    rig.audit_exactly().await;
});

on_both!(what_was_spent_before_the_reorganisation_is_owed, async |rig: Rig| {
    let (client, shop) = (Client::number(1), Client::number(2));
    rig.funded(&client, 100_000).await;
    rig.register(&shop).await;
    settled(&rig, &client, 40_000).await;
    rig.mine(1).await;
    spend_offchain(&rig, &client, &shop, sat(30_000)).await;
    rig.chain.reorg(1, 2, Reorged::BackInMempool).expect("a reorganisation");
    rig.settle().await;
    assert_eq!((rig.available(&client).await, debt(&rig, &client).await), (0, 30_000_000));
    let receive = rig.invoice(&shop, Some(sat(1))).await;
    let refused = rig.begin_pay(&client, &receive.machine.invoice, None).await.expect_err("it is in debt");
    assert_eq!(refused.code(), Code::InsufficientFunds);
    assert!(refused.to_string().contains("owes 30000000 msat"), "{refused}");
    // What comes in pays the debt first.
    let topup = rig.invoice(&client, Some(sat(12_000))).await;
    rig.lightning.shop_pays(&topup.machine.invoice, topup.machine.hash, sat(12_000)).await;
    rig.settle().await;
    assert_eq!((rig.available(&client).await, debt(&rig, &client).await), (0, 18_000_000));
    rig.audit().await;
    // The coin comes again: it clears the rest, once.
    rig.mine(1).await;
    assert_eq!((rig.available(&client).await, debt(&rig, &client).await), (22_000_000, 0));
    assert_eq!(rig.available(&shop).await, 30_000_000);
    rig.audit_exactly().await;
});

on_both!(what_a_hold_lets_go_of_pays_the_debt, async |rig: Rig| {
    let (client, shop) = (Client::number(1), Client::number(2));
    rig.funded(&client, 100_000).await;
    rig.register(&shop).await;
    settled(&rig, &client, 40_000).await;
    rig.mine(1).await;
    let receive = rig.invoice(&shop, Some(sat(30_000))).await;
    let begun = rig.begin_pay(&client, &receive.machine.invoice, None).await.expect("it begins");
    rig.chain.reorg(1, 2, Reorged::Gone).expect("a reorganisation");
    rig.settle().await;
    assert_eq!((rig.offchain(&client).await.held, debt(&rig, &client).await), (sat(30_000), 30_000_000));
    rig.audit().await;
    // Nobody consents in time: the hold is let go of, and pays.
    rig.wait(3_600).await;
    assert_eq!((rig.available(&client).await, debt(&rig, &client).await), (0, 0));
    assert_eq!(rig.payment_state(&client, begun.request).await, "expired");
    rig.audit().await;
});

on_both!(sixty_four_ends_are_one_settle, async |rig: Rig| {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let begun = begin(&rig, &client, Some(40_000)).await.expect("it begins");
    let (signed, wallet) = (client.sign(&begun.psbt), client.keys.id());
    let ended = join_all((0..64).map(|_| settle::end(&rig.flows, &wallet, &signed))).await;
    assert!(ended.iter().all(Result::is_ok));
    rig.mine(1).await;
    assert_eq!(rig.available(&client).await, 40_000_000);
    rig.audit_exactly().await;
});

on_both!(a_settle_is_ended_and_read_where_it_was_begun, async |rig: Rig| {
    let (client, other) = (Client::number(1), Client::number(2));
    rig.funded_with(&client, &[50_000, 50_000, 50_000]).await;
    rig.register(&other).await;
    let begun = begin(&rig, &client, Some(40_000)).await.expect("it begins");
    let signed = client.sign(&begun.psbt);
    let wrong_door = rig.end_signed(&client, &signed).await.expect_err("it is no send");
    assert_eq!(wrong_door.code(), Code::PsbtUnknown);
    let foreign = settle::end(&rig.flows, &other.keys.id(), &signed).await.expect_err("it is another wallet's");
    assert_eq!(foreign.code(), Code::PsbtUnknown);
    let send = rig.begin(&client, &stranger(), 5_000).await.expect("it begins");
    let found = settle::get(&rig.flows, &client.keys.id(), send.request).await.expect("the store answers");
    assert!(found.is_none(), "a send is no settle");
    let hidden = settle::get(&rig.flows, &other.keys.id(), begun.request).await.expect("the store answers");
    assert!(hidden.is_none());
    rig.audit().await;
});

on_both!(a_bumped_settle_is_credited_by_the_version_that_confirms, async |rig: Rig| {
    let client = Client::number(1);
    rig.funded(&client, 100_000).await;
    let begun = settled(&rig, &client, 40_000).await;
    let bump = rig.bump(&client, begun.request, 20, false).await.expect("it bumps");
    rig.end_bump(&client, &bump).await.expect("it ends");
    rig.settle().await;
    rig.mine(1).await;
    assert_eq!(rig.available(&client).await, 40_000_000);
    assert_eq!(look(&rig, &client, &begun).await.credited(), Some(Sat::literal(40_000)));
    assert!(matches!(credits_of(&rig, &begun).await[0].state, CreditState::Replaced { .. }));
    rig.audit_exactly().await;
});

on_both!(without_the_node_a_known_address_still_serves, async |rig: Rig| {
    let client = Client::number(1);
    rig.funded_with(&client, &[50_000, 50_000, 50_000]).await;
    rig.flows.node().leave();
    let refused = begin(&rig, &client, Some(5_000)).await.expect_err("there is no address yet");
    assert_eq!(refused.code(), Code::LightningNotReady);
    rig.flows.node().arrive(rig.lightning.node.clone());
    begin(&rig, &client, Some(5_000)).await.expect("it begins");
    rig.flows.node().leave();
    begin(&rig, &client, Some(6_000)).await.expect("it begins with the address of before");
    rig.flows.node().arrive(rig.lightning.node.clone());
    rig.audit().await;
});
