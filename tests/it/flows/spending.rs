//! Which coins are taken, what is paid for them, and what a signer gets to see.

use std::collections::HashSet;
use std::str::FromStr;

use bitcoin::absolute::LockTime;
use bitcoin::{Address, Network, Psbt, ScriptBuf};
use sluice::domain::policy::FeeCaps;
use sluice::domain::wallet::Account;
use sluice::flows::send::BeginSend;
use sluice::flows::{Code, Policy};

use crate::harness::rig::{Client, Rig, amount, inputs_of, on_both, policy, stranger, unsigned, wanted};

fn deducted(sat: u64) -> BeginSend {
    BeginSend { deduct_fee: true, ..wanted(&stranger(), sat) }
}

fn to_stranger(psbt: &str) -> u64 {
    let paid = unsigned(psbt).output.into_iter().find(|out| out.script_pubkey == stranger().script_pubkey());
    paid.expect("the stranger is paid").value.to_sat()
}

/// The fee is what was asked for, for what the signed transaction really weighs, and hardly more.
fn assert_fair_fee(client: &Client, psbt: &str, rate: u64, extra: u64) {
    let fee = Psbt::from_str(psbt).expect("a PSBT").fee().expect("amounts are there").to_sat();
    let vsize = client.signed_tx(psbt).vsize() as u64;
    assert!(fee >= rate * vsize, "{fee} sat for {vsize} vB at {rate}");
    let inputs = unsigned(psbt).input.len() as u64;
    assert!(fee <= rate * (vsize + inputs + 2) + extra, "{fee} sat for {vsize} vB at {rate}");
}

on_both!(the_fee_is_deducted_from_what_the_recipient_gets, |rig| async move {
    let client = Client::number(1);
    rig.funded_with(&client, &[50_000, 40_000]).await;
    let with_change = rig.begin_with(&client, deducted(30_000)).await.expect("it begins");
    assert_eq!(to_stranger(&with_change.psbt), 30_000 - with_change.fee.to_u64());
    assert_eq!(unsigned(&with_change.psbt).output.len(), 2);
    assert_fair_fee(&client, &with_change.psbt, 2, 0);
    let without = rig.begin_with(&client, deducted(39_900)).await.expect("what is over is dust");
    assert_eq!(unsigned(&without.psbt).output.len(), 1);
    assert!(to_stranger(&without.psbt) <= 39_900, "never more than was asked for");
    assert_fair_fee(&client, &without.psbt, 2, 100);
    rig.audit().await;
});

on_both!(all_of_it, |rig| async move {
    let client = Client::number(2);
    rig.funded_with(&client, &[50_000, 40_000, 777]).await;
    let all = rig.spendable(&client).await;
    assert_eq!(rig.begin(&client, &stranger(), all).await.expect_err("no fee").code(), Code::InsufficientFunds);
    let begun = rig.begin_with(&client, deducted(all)).await.expect("a sweep");
    assert_eq!(unsigned(&begun.psbt).input.len(), 3);
    assert_eq!(to_stranger(&begun.psbt), all - begun.fee.to_u64());
    assert_fair_fee(&client, &begun.psbt, 2, 0);
    rig.end(&client, &begun.psbt).await.expect("it ends");
    rig.mine(1).await;
    assert_eq!(rig.balance(&client).await.settled, amount(0));
    assert_eq!(rig.begin_with(&client, deducted(all)).await.expect_err("empty").code(), Code::InsufficientFunds);
    rig.audit().await;
});

on_both!(dust_is_neither_sent_nor_kept, |rig| async move {
    let client = Client::number(3);
    rig.funded(&client, 100_000).await;
    let dust = stranger().script_pubkey().minimal_non_dust().to_sat();
    let refused = rig.begin(&client, &stranger(), dust - 1).await.expect_err("dust");
    assert_eq!((refused.code(), refused.field_name()), (Code::AmountBelowDust, Some("amount_sats")));
    assert_eq!(rig.begin_with(&client, deducted(dust + 1)).await.expect_err("dust").code(), Code::AmountBelowDust);
    let fee_without_change = 2 * 110;
    let begun = rig.begin(&client, &stranger(), 100_000 - fee_without_change - 300).await.expect("it begins");
    assert_eq!(unsigned(&begun.psbt).output.len(), 1, "change of a few hundred is not worth an output");
    assert_fair_fee(&client, &begun.psbt, 2, 330);
    rig.end(&client, &begun.psbt).await.expect("it ends");
    rig.mine(1).await;
    rig.audit().await;
});

on_both!(the_largest_amount_that_is_named_is_possible, |rig| async move {
    let client = Client::number(4);
    let address = rig.register(&client).await;
    let outputs = vec![(address.script_pubkey(), amount(5_000)); 1_050];
    rig.chain.pay_many(&outputs).expect("the fake pays");
    rig.mine(1).await;
    let refused = rig.begin(&client, &stranger(), 1_050 * 5_000 - 200_000).await.expect_err("too many coins");
    assert_eq!(refused.code(), Code::TooManyInputs, "{refused}");
    let words = refused.to_string();
    let possible = words.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).max().expect("it is named");
    let begun = rig.begin(&client, &stranger(), possible).await.expect("it is possible");
    assert!(unsigned(&begun.psbt).input.len() <= 1_000);
    assert_eq!(to_stranger(&begun.psbt), possible);
    rig.wait(601).await;
    let refused = rig.begin_with(&client, deducted(1_050 * 5_000)).await.expect_err("too many coins");
    assert_eq!(refused.code(), Code::TooManyInputs);
    rig.begin_with(&client, deducted(1_000 * 5_000)).await.expect("a thousand are not too many");
    rig.audit().await;
});

fn careful() -> Policy {
    let fees =
        FeeCaps { max_rate_sat_per_vb: 50, max_fee_sat: 5_000, max_fee_percent: 10, percent_applies_above_sat: 1_000 };
    Policy { fees, ..policy() }
}

on_both!(a_fee_that_is_a_blunder_is_refused, careful(), |rig| async move {
    let client = Client::number(5);
    rig.funded(&client, 1_000_000).await;
    let at = |sat, fee_rate| BeginSend { fee_rate, ..wanted(&stranger(), sat) };
    let code = |result: Result<sluice::flows::send::Begun, sluice::flows::Error>| result.expect_err("refused").code();
    assert_eq!(code(rig.begin_with(&client, at(100_000, 0)).await), Code::FeeRateOutOfRange);
    assert_eq!(code(rig.begin_with(&client, at(100_000, 51)).await), Code::FeeRateOutOfRange);
    assert_eq!(code(rig.begin_with(&client, at(900_000, 50)).await), Code::FeeTooHigh, "7,000 sat in all");
    assert_eq!(code(rig.begin_with(&client, at(10_000, 10)).await), Code::FeeTooHigh, "a tenth of the amount");
    rig.begin_with(&client, at(10_000, 5)).await.expect("small fees need not be a small share");
    rig.audit().await;
});

on_both!(more_confirmations_may_be_asked_for, |rig| async move {
    let client = Client::number(6);
    rig.funded(&client, 100_000).await;
    let deep = |depth| BeginSend { min_confirmations: Some(depth), ..wanted(&stranger(), 10_000) };
    assert_eq!(rig.begin_with(&client, deep(3)).await.expect_err("1 of 3").code(), Code::CoinsUnconfirmed);
    rig.mine(1).await;
    assert_eq!(rig.begin_with(&client, deep(3)).await.expect_err("2 of 3").code(), Code::CoinsUnconfirmed);
    rig.mine(1).await;
    rig.begin_with(&client, deep(3)).await.expect("3 of 3");
    rig.audit().await;
});

on_both!(own_change_is_spent_in_a_chain, |rig| async move {
    let client = Client::number(7);
    rig.funded(&client, 100_000).await;
    let mut spent = 0;
    let mut last = None;
    for _ in 0..10 {
        let begun = rig.sent(&client, 2_000).await;
        spent += 2_000 + begun.fee.to_u64();
        assert_eq!(rig.spendable(&client).await, 100_000 - spent);
        last = Some(begun);
    }
    rig.mine(1).await;
    let state = rig.state(&client, last.expect("ten of them").request).await;
    assert!(matches!(state, sluice::domain::onchain_send::State::Confirmed { .. }));
    assert_eq!(rig.balance(&client).await.settled, amount(100_000 - spent));
    rig.audit().await;
});

on_both!(a_psbt_says_all_that_a_signer_needs, |rig| async move {
    let client = Client::number(8);
    rig.funded_with(&client, &[40_000, 40_000, 40_000]).await;
    let begun = rig.begin(&client, &stranger(), 100_000).await.expect("it begins");
    let psbt = Psbt::from_str(&begun.psbt).expect("a PSBT");
    assert_eq!(psbt.unsigned_tx.version.0, 2);
    assert_eq!(psbt.unsigned_tx.lock_time, LockTime::from_height(rig.chain.tip().height).expect("a height"));
    assert_eq!(psbt.inputs.len(), 3);
    for (input, place) in psbt.inputs.iter().zip(&psbt.unsigned_tx.input) {
        assert!(place.sequence.is_rbf() && place.sequence.enables_absolute_lock_time());
        let coin = input.witness_utxo.as_ref().expect("witness_utxo");
        let key = input.tap_internal_key.expect("tap_internal_key");
        let (leaves, (fingerprint, path)) = input.tap_key_origins.get(&key).expect("tap_bip32_derivation");
        assert!(leaves.is_empty() && input.tap_key_origins.len() == 1);
        assert_eq!(*fingerprint, client.keys.master_fingerprint());
        assert_eq!(path.to_string(), "86'/1'/0'/0/0");
        assert_eq!(coin.script_pubkey, client.address_at(0).script_pubkey());
        assert!(input.partial_sigs.is_empty() && input.bip32_derivation.is_empty() && input.sighash_type.is_none());
    }
    let change = psbt.unsigned_tx.output.iter().position(|out| out.script_pubkey != stranger().script_pubkey());
    let change = change.expect("there is change");
    let origins = &psbt.outputs[change].tap_key_origins;
    let (_, path) = &origins.values().next().expect("the change says whose it is").1;
    let index = path.to_string().rsplit('/').next().and_then(|index| index.parse().ok()).expect("an index");
    assert_eq!(client.address_at(index).script_pubkey(), psbt.unsigned_tx.output[change].script_pubkey);
    assert_fair_fee(&client, &begun.psbt, 2, 0);
    rig.audit().await;
});

on_both!(fees_are_fair_whatever_is_paid, |rig| async move {
    let client = Client::number(9);
    let coins: Vec<u64> = (1..=24).map(|n| n * 7_001).collect();
    rig.funded_with(&client, &coins).await;
    for (sat, rate, deduct) in [(1_000, 1, false), (150_000, 3, false), (400_000, 7, true), (300_000, 11, false)] {
        let asked = BeginSend { fee_rate: rate, deduct_fee: deduct, ..wanted(&stranger(), sat) };
        let begun = rig.begin_with(&client, asked).await.expect("it begins");
        assert_fair_fee(&client, &begun.psbt, u64::from(rate), 330);
        rig.end(&client, &begun.psbt).await.expect("it ends");
        rig.mine(1).await;
    }
    rig.audit().await;
});

on_both!(a_destination_is_an_address_of_this_network, |rig| async move {
    let client = Client::number(10);
    rig.funded(&client, 100_000).await;
    let begin = |to: &str| rig.begin_with(&client, BeginSend { to: to.to_owned(), ..wanted(&stranger(), 10_000) });
    for mainnet in ["bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"] {
        let refused = begin(mainnet).await.expect_err("mainnet");
        assert_eq!((refused.code(), refused.field_name()), (Code::WrongNetwork, Some("address_or_rgbinvoice")));
    }
    for nonsense in ["", "bcrt1", "rgb:whatever", "bitcoin:bcrt1q", "\u{0}"] {
        assert_eq!(begin(nonsense).await.expect_err("nonsense").code(), Code::InvalidAddress, "{nonsense:?}");
    }
    let script = ScriptBuf::new_p2sh(&ScriptBuf::new().script_hash());
    let p2sh = Address::from_script(&script, Network::Regtest).expect("an address");
    begin(&format!("  {p2sh}\n")).await.expect("blanks around it do no harm");
    rig.audit().await;
});

on_both!(thirty_two_wait_and_no_more, |rig| async move {
    let client = Client::number(11);
    rig.funded_with(&client, &[10_000; 40]).await;
    let to = stranger();
    let begins = (0..36).map(|_| rig.begin(&client, &to, 5_000));
    let answers = futures::future::join_all(begins).await;
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).map(|error| error.code()).collect();
    assert_eq!(refused, [Code::TooManyOpenRequests; 4]);
    let begun: Vec<_> = answers.into_iter().flatten().collect();
    rig.end(&client, &begun[0].psbt).await.expect("it ends");
    rig.begin(&client, &stranger(), 5_000).await.expect("one place is free");
    rig.wait(601).await;
    rig.begin(&client, &stranger(), 5_000).await.expect("and all are when time is up");
    rig.audit().await;
});

on_both!(one_transaction_may_be_begun_again_and_again, |rig| async move {
    let client = Client::number(12);
    rig.funded(&client, 100_000).await;
    let mut seen = HashSet::new();
    for _ in 0..15 {
        let begun = rig.begin_with(&client, deducted(100_000)).await.expect("no block has come, and it is new");
        assert!(seen.insert(unsigned(&begun.psbt).compute_txid()));
        rig.wait(601).await;
    }
    rig.audit().await;
});

on_both!(sixteen_begins_find_sixteen_coins, |rig| async move {
    let client = Client::number(13);
    rig.funded_with(&client, &[10_000; 16]).await;
    let to = stranger();
    let begins = (0..16).map(|_| rig.begin(&client, &to, 5_000));
    let begun: Vec<_> =
        futures::future::join_all(begins).await.into_iter().map(|begun| begun.expect("a coin for each")).collect();
    let coins: HashSet<_> = begun.iter().flat_map(|begun| inputs_of(&unsigned(&begun.psbt))).collect();
    assert_eq!(coins.len(), 16);
    let ends = begun.iter().map(|begun| rig.end(&client, &begun.psbt));
    assert!(futures::future::join_all(ends).await.iter().all(Result::is_ok));
    rig.mine(1).await;
    rig.audit().await;
});

async fn pay_out(rig: &Rig, client: &Client) {
    let begun = rig.begin(client, &stranger(), 5_000).await.expect("it begins");
    rig.end(client, &begun.psbt).await.expect("it ends");
}

on_both!(thirty_two_wallets_pay_at_once, |rig| async move {
    let clients: Vec<Client> = (100..132).map(Client::number).collect();
    let mut outputs = Vec::new();
    for client in &clients {
        let registered = sluice::flows::register::register(&rig.flows, &client.keys, None).await.expect("it registers");
        let address = crate::harness::rig::parse_address(&registered.address);
        outputs.push((address.script_pubkey(), amount(20_000)));
    }
    rig.settle().await;
    rig.chain.pay_many(&outputs).expect("the fake pays");
    rig.mine(1).await;
    futures::future::join_all(clients.iter().map(|client| pay_out(&rig, client))).await;
    rig.settle().await;
    assert_eq!(rig.chain.mempool_ids().len(), 32);
    rig.mine(1).await;
    for client in &clients {
        assert!(rig.spendable(client).await > 14_000);
    }
    rig.audit().await;
});

on_both!(colored_coins_are_not_spent_as_bitcoin, |rig| async move {
    let client = Client::number(14);
    rig.register(&client).await;
    let colored = client.keys.scripts(Account::Colored, 0..1)[0].script.clone();
    rig.chain.fund_confirmed(&colored, amount(50_000)).expect("the fake pays");
    rig.settle().await;
    assert_eq!(rig.spendable(&client).await, 0);
    assert_eq!(rig.begin(&client, &stranger(), 1_000).await.expect_err("not those").code(), Code::InsufficientFunds);
    rig.audit().await;
});
