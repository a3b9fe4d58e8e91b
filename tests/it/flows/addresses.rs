//! Addresses are handed out once, watched for ever, and never taken for change.

use std::collections::HashSet;

use bitcoin::Address;
use sluice::domain::wallet::Account;
use sluice::flows::address::{self, NewAddress};
use sluice::flows::{BodyHash, Idempotency, Policy};
use sluice::store::wallets::{self, Keychain};

use crate::harness::rig::{Client, Rig, on_both, policy, stranger, unsigned};

async fn keychain(rig: &Rig, client: &Client) -> Keychain {
    let mut conn = rig.flows.store().read().await.expect("the store answers");
    wallets::keychain(&mut conn, &client.keys.id(), Account::Vanilla).await.expect("it is there")
}

on_both!(fifty_addresses_and_fifty_sends_share_nothing, |rig| async move {
    let client = Client::number(1);
    rig.funded_with(&client, &[100_000; 10]).await;
    let before = rig.deposits(&client).await.len();
    let mut handed_out: HashSet<Address> = HashSet::new();
    for _ in 0..50 {
        assert!(handed_out.insert(rig.address(&client).await), "handed out once");
    }
    let mut change = HashSet::new();
    for round in 0..50 {
        let begun = rig.sent(&client, 2_000).await;
        let outputs = unsigned(&begun.psbt).output;
        let back: Vec<_> = outputs.iter().filter(|out| out.script_pubkey != stranger().script_pubkey()).collect();
        assert_eq!(back.len(), 1);
        assert!(change.insert(back[0].script_pubkey.clone()), "change goes to a new address each time");
        if round % 10 == 9 {
            rig.mine(1).await;
        }
    }
    rig.mine(1).await;
    assert!(handed_out.iter().all(|address| !change.contains(&address.script_pubkey())), "never to a customer's");
    assert_eq!(rig.deposits(&client).await.len(), before, "0 false deposits");
    assert!(handed_out.insert(rig.address(&client).await));
    rig.audit().await;
});

on_both!(the_current_address_stays_until_it_is_used_or_expires, |rig| async move {
    let client = Client::number(2);
    let first = rig.register(&client).await;
    assert_eq!(rig.current_address(&client).await, first);
    rig.begin(&client, &stranger(), 1_000).await.expect_err("there is no money");
    assert_eq!(rig.current_address(&client).await, first);
    rig.pay(&first, 10_000).await;
    let second = rig.current_address(&client).await;
    assert_ne!(second, first, "it is used");
    rig.wait(24 * 60 * 60 - 1).await;
    assert_eq!(rig.current_address(&client).await, second);
    rig.wait(1).await;
    let third = rig.current_address(&client).await;
    assert!(third != second && third != first, "it has expired");
    let askers = (0..16).map(|_| rig.current_address(&client));
    assert!(futures::future::join_all(askers).await.into_iter().all(|address| address == third));
    rig.mine(1).await;
    rig.audit().await;
});

on_both!(sixteen_first_askers_get_one_address, |rig| async move {
    let client = Client::number(3);
    let registered = (0..8).map(|_| sluice::flows::register::register(&rig.flows, &client.keys, None));
    let all = futures::future::join_all(registered).await;
    let addresses: HashSet<String> = all.into_iter().map(|r| r.expect("it registers").address).collect();
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    let new = (0..16).map(|_| rig.address(&client));
    let new: HashSet<Address> = futures::future::join_all(new).await.into_iter().collect();
    assert_eq!(new.len(), 16, "a new one for each");
    rig.audit().await;
});

on_both!(the_lookahead_is_kept, Policy { lookahead: 1_000, ..policy() }, |rig| async move {
    let client = Client::number(4);
    rig.register(&client).await;
    for _ in 0..120 {
        rig.address(&client).await;
        let keychain = keychain(&rig, &client).await;
        assert!(keychain.derived_to >= keychain.next_index + 1_000, "{keychain:?}");
    }
    let far = client.address_at(1_000);
    rig.pay_confirmed(&far, 5_000).await;
    let after = keychain(&rig, &client).await;
    assert_eq!(after.next_index, 1_001);
    assert!(after.derived_to >= 2_001, "{after:?}");
    assert_eq!(rig.spendable(&client).await, 5_000);
    assert!(rig.deposits(&client).await.is_empty(), "nobody was given that address here");
    rig.audit().await;
});

on_both!(an_index_used_elsewhere_is_skipped, |rig| async move {
    let client = Client::number(5);
    rig.register(&client).await;
    rig.pay(&client.address_at(1), 5_000).await;
    assert_eq!(rig.address(&client).await, client.address_at(2));
    rig.mine(1).await;
    assert!(rig.deposits(&client).await.is_empty());
    rig.audit().await;
});

on_both!(payments_beyond_the_lookahead_in_one_block, |rig| async move {
    let client = Client::number(6);
    rig.register(&client).await;
    let derived = keychain(&rig, &client).await.derived_to;
    let (near, far, further) = (derived - 1, derived + 149, derived + 190);
    let pay = |index: u32| (client.address_at(index).script_pubkey(), sluice::money::Sat::literal(1_000));
    rig.chain.pay_many(&[pay(further)]).expect("the fake pays");
    rig.chain.pay_many(&[pay(near), pay(far)]).expect("the fake pays");
    rig.chain.mine(1);
    rig.settle().await;
    assert_eq!(rig.spendable(&client).await, 3_000, "each widens what is watched for the next");
    rig.audit().await;
});

on_both!(payments_beyond_the_lookahead_in_the_mempool, |rig| async move {
    let client = Client::number(7);
    rig.register(&client).await;
    let derived = keychain(&rig, &client).await.derived_to;
    for index in [derived + 190, derived + 149, derived - 1] {
        let script = client.address_at(index).script_pubkey();
        rig.chain.pay(&script, sluice::money::Sat::literal(1_000)).expect("the fake pays");
    }
    rig.settle().await;
    assert_eq!(rig.balance(&client).await.future.to_u64(), 3_000);
    rig.mine(1).await;
    assert_eq!(rig.spendable(&client).await, 3_000);
    rig.audit().await;
});

on_both!(a_send_to_the_next_address_of_oneself, |rig| async move {
    let client = Client::number(8);
    rig.funded(&client, 100_000).await;
    let next = keychain(&rig, &client).await.next_index;
    let to = client.address_at(next);
    let begun = rig.begin(&client, &to, 30_000).await.expect("it begins");
    let outputs = unsigned(&begun.psbt).output;
    assert_eq!(outputs.iter().filter(|out| out.script_pubkey == to.script_pubkey()).count(), 1);
    rig.end(&client, &begun.psbt).await.expect("it ends");
    rig.settle().await;
    let bump = rig.bump(&client, begun.request, 9, false).await.expect("it bumps");
    let kept = unsigned(&bump.psbt)
        .output
        .iter()
        .any(|out| out.script_pubkey == to.script_pubkey() && out.value.to_sat() == 30_000);
    assert!(kept, "a bump keeps the recipient");
    rig.mine(1).await;
    assert_ne!(rig.address(&client).await, to);
    rig.audit().await;
});

on_both!(an_address_with_a_key_is_answered_again, |rig| async move {
    let client = Client::number(9);
    rig.register(&client).await;
    let ask = |key: &str, body: &str| {
        let wanted = NewAddress { label: Some("a".to_owned()), reference: Some("r".to_owned()) };
        let idempotency = Idempotency { key: key.to_owned(), body_hash: BodyHash::of_bytes(body) };
        address::new(&rig.flows, &client.keys, wanted, Some(idempotency))
    };
    let first = ask("k", "b").await.expect("an address");
    let raced = futures::future::join_all((0..16).map(|_| ask("k", "b"))).await;
    assert!(raced.into_iter().all(|again| again.expect("the same").machine.address == first.machine.address));
    let refused = ask("k", "other").await.expect_err("another body");
    assert_eq!(refused.code(), sluice::flows::Code::IdempotencyMismatch);
    assert_ne!(ask("l", "b").await.expect("another key").machine.address, first.machine.address);
    rig.audit().await;
});
