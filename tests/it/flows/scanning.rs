//! Registering keys that have a past, and releasing them.

use std::collections::HashSet;

use bitcoin::bip32::{Fingerprint, Xpub};
use bitcoin::{Network, OutPoint};
use sluice::chain::fake::FakeChain;
use sluice::domain::wallet::{Account, WalletKeys};
use sluice::flows::{Code, Policy, balance, register, scan};
use std::str::FromStr;

use crate::harness::restless::Restless;
use crate::harness::rig::{Client, Rig, amount, on_both, policy, spend_elsewhere, stranger};

fn fund(rig: &Rig, client: &Client, index: u32, sat: u64) -> OutPoint {
    let script = client.address_at(index).script_pubkey();
    rig.chain.fund_confirmed(&script, amount(sat)).expect("the fake pays").0
}

async fn is_scanning(rig: &Rig, client: &Client) -> bool {
    balance::balances(&rig.flows, &client.keys.id()).await.expect("a balance").scanning
}

on_both!(coins_from_before, |rig| async move {
    let client = Client::number(1);
    fund(&rig, &client, 0, 10_000);
    fund(&rig, &client, 0, 11_000);
    fund(&rig, &client, 7, 20_000);
    rig.chain.pay(&client.address_at(8).script_pubkey(), amount(30_000)).expect("the fake pays");
    rig.follow().await;
    let registered = register::register(&rig.flows, &client.keys, None).await.expect("it registers");
    assert!(registered.balances.scanning && is_scanning(&rig, &client).await);
    rig.settle().await;
    assert!(!is_scanning(&rig, &client).await);
    assert_eq!(rig.spendable(&client).await, 41_000);
    assert_eq!(rig.balance(&client).await.future, amount(71_000), "the mempool is looked at again");
    assert!(rig.deposits(&client).await.is_empty(), "nobody was asked for that money here");
    let current = rig.current_address(&client).await;
    assert_eq!(current, client.address_at(9), "not one that was used before, the first included");
    rig.audit().await;
    // The first address was handed out all the same: what comes to it now is a deposit.
    rig.pay_confirmed(&client.address_at(0), 5_000).await;
    assert_eq!(rig.deposit(&client).await.amount, amount(5_000));
    rig.mine(1).await;
    rig.audit().await;
});

on_both!(the_search_widens_as_far_as_coins_go, Policy { lookahead: 1_000, ..policy() }, |rig| async move {
    let client = Client::number(2);
    fund(&rig, &client, 990, 10_000);
    fund(&rig, &client, 1_900, 20_000);
    rig.register(&client).await;
    assert_eq!(rig.spendable(&client).await, 30_000);
    assert_eq!(rig.address(&client).await, client.address_at(1_901));
    rig.audit().await;
});

on_both!(the_chain_moves_during_the_search, |rig| async move {
    let mut rig = rig;
    let client = Client::number(3);
    let spent = fund(&rig, &client, 3, 10_000);
    fund(&rig, &client, 4, 20_000);
    rig.follow().await;
    register::register(&rig.flows, &client.keys, None).await.expect("it registers");
    let script = client.address_at(5).script_pubkey();
    let event = move |chain: &FakeChain| {
        let gone = spend_elsewhere(&[spent], &stranger(), 9_000);
        chain.mine_with(vec![gone]).expect("a valid block");
        chain.fund_confirmed(&script, amount(40_000)).expect("the fake pays");
        chain.mine(3);
    };
    rig.restart_with(Restless::during_scan(&rig.chain, event));
    // The follower reads the new blocks while the scanner waits for it.
    let follow = async {
        for _ in 0..20 {
            rig.follow().await;
            tokio::task::yield_now().await;
        }
    };
    let (scanned, ()) = tokio::join!(scan::scan_waiting(&rig.flows, &rig.owner), follow);
    scanned.expect("it scans");
    rig.settle().await;
    assert!(!is_scanning(&rig, &client).await);
    assert_eq!(rig.spendable(&client).await, 60_000, "what was spent meanwhile is not there, what came is");
    rig.audit().await;
});

on_both!(a_coin_is_spent_in_the_mempool_when_its_wallet_registers, |rig| async move {
    let client = Client::number(4);
    let coin = fund(&rig, &client, 3, 10_000);
    rig.offer(&spend_elsewhere(&[coin], &client.address_at(4), 9_000)).await;
    rig.register(&client).await;
    assert_eq!(rig.spendable(&client).await, 0);
    assert_eq!(rig.balance(&client).await.future, amount(9_000));
    rig.mine(1).await;
    assert_eq!(rig.spendable(&client).await, 9_000);
    assert!(rig.deposits(&client).await.is_empty());
    rig.audit().await;
});

on_both!(a_found_coin_is_reorganised_away, |rig| async move {
    let client = Client::number(5);
    fund(&rig, &client, 3, 10_000);
    rig.register(&client).await;
    assert_eq!(rig.spendable(&client).await, 10_000);
    rig.chain.reorg(1, 2, sluice::chain::fake::Reorged::Gone).expect("a reorganisation");
    rig.settle().await;
    assert_eq!(rig.balance(&client).await.future, amount(0));
    rig.audit().await;
});

on_both!(a_released_wallet_goes_on_where_it_stopped, |rig| async move {
    let client = Client::number(6);
    let address = rig.register(&client).await;
    rig.pay_confirmed(&address, 10_000).await;
    let begun = rig.sent(&client, 3_000).await;
    rig.mine(1).await;
    let mut handed_out: HashSet<_> = HashSet::from([address]);
    // Further than what a new registration watches.
    for _ in 0..170 {
        handed_out.insert(rig.address(&client).await);
    }
    let before = rig.spendable(&client).await;
    rig.wait(60).await;
    rig.release(&client).await;
    rig.audit().await;
    rig.register(&client).await;
    assert_eq!(rig.spendable(&client).await, before);
    assert!(!handed_out.contains(&rig.current_address(&client).await));
    assert!(!handed_out.contains(&rig.address(&client).await), "an index is issued once");
    rig.audit().await;
    let again = rig.sent(&client, 1_000).await;
    assert_ne!(again.request, begun.request);
    rig.mine(1).await;
    rig.audit().await;
});

on_both!(a_key_belongs_to_one_wallet, |rig| async move {
    let (one, two) = (Client::number(7), Client::number(8));
    rig.register(&one).await;
    let fingerprint = one.keys.fingerprint();
    let (van, col) = (one.keys.xpub(Account::Vanilla), one.keys.xpub(Account::Colored));
    // The same key in another encoding: its parent is said to be another.
    let mut disguised = Xpub::from_str(&van).expect("an xpub");
    disguised.parent_fingerprint = Fingerprint::from([1, 2, 3, 4]);
    let other_col = two.keys.xpub(Account::Colored);
    let triples = [
        (disguised.to_string(), col.clone(), fingerprint.clone(), "xpub-van"),
        (van.clone(), other_col.clone(), fingerprint.clone(), "xpub-van"),
        (other_col, van.clone(), fingerprint.clone(), "xpub-col"),
        (col.clone(), van.clone(), fingerprint, "xpub-van"),
        (van, col, "00000000".to_owned(), "xpub-van"),
    ];
    for (van, col, fingerprint, field) in triples {
        let keys = WalletKeys::parse(&van, &col, &fingerprint, Network::Regtest).expect("a triple");
        let refused = register::register(&rig.flows, &keys, None).await.expect_err("in use");
        assert_eq!((refused.code(), refused.field_name()), (Code::KeychainInUse, Some(field)));
    }
    rig.release(&one).await;
    let keys =
        WalletKeys::parse(&disguised.to_string(), &one.keys.xpub(Account::Colored), "00000000", Network::Regtest);
    register::register(&rig.flows, &keys.expect("a triple"), None).await.expect("it is free now");
    rig.settle().await;
    rig.audit().await;
});
