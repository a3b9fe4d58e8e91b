//! What every engine for RGB assets has to do, for two wallets that pay each other.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluice::clock::Clock;
use sluice::domain::wallet::{Account, WalletKeys, address_of};
use sluice::money::{Amount, FeeRate, Sat};
use sluice::ports::assets::{
    Asset, AssetEngine, AssetError, NewAsset, NewReceive, NewTransfer, Onto, Receive, Recipient, Refusal, Transfer,
    TransferKind, TransferStatus, Verdict,
};
use sluice::secret::Secret;

use crate::harness::rig::Client;

mod fake;
mod rgb;

const COIN: Sat = Sat::literal(3_000);
const ENDPOINT: &str = "rpc://127.0.0.1:3000/json-rpc";

/// The world around the engine.
#[async_trait(?Send)]
trait Rig {
    fn engine(&self) -> Arc<dyn AssetEngine>;
    /// Ends the engine, and starts it on what it has written down.
    async fn restart(&mut self);
    async fn pay(&self, address: &str, sat: Sat);
    async fn mine(&self, blocks: u32);
    /// The assets that an export says, for somebody without the engine that made it; `None` when the password is another.
    async fn opened(&self, sealed: &[u8], password: &str, keys: &WalletKeys) -> Option<Vec<Asset>>;
}

fn units(n: u64) -> Amount {
    Amount::from_asset_units(n).expect("a small number")
}

fn in_an_hour() -> u64 {
    let then = Clock::System.now().after(Duration::from_secs(3_600));
    u64::try_from(then.millis() / 1_000).expect("after 1970")
}

/// Gives a wallet coins for assets, as many as it is told, each confirmed.
async fn give_coins(rig: &dyn Rig, keys: &WalletKeys, coins: u32) {
    let first = rig.engine().next_index(keys).await.expect("an index");
    for derived in keys.scripts(Account::Colored, first..first + coins) {
        rig.pay(&address_of(&derived.script, keys.network()), COIN).await;
    }
    rig.mine(1).await;
    rig.engine().learn_coins(keys, first + coins).await.expect("it takes them in");
}

async fn issue(rig: &dyn Rig, keys: &WalletKeys, amounts: &[u64]) -> Asset {
    let new = NewAsset {
        ticker: "GOLD".to_owned(),
        name: "Gold of a test".to_owned(),
        precision: 2,
        amounts: amounts.iter().copied().map(units).collect(),
    };
    rig.engine().issue(keys, new).await.expect("it issues")
}

async fn invoice(rig: &dyn Rig, keys: &WalletKeys, onto: Onto, asset: Option<&str>, amount: Option<u64>) -> Receive {
    let new = NewReceive {
        onto,
        asset: asset.map(str::to_owned),
        amount: amount.map(units),
        expires_at: in_an_hour(),
        min_confirmations: 1,
        endpoints: vec![ENDPOINT.to_owned()],
    };
    let made = rig.engine().receive(keys, new).await.expect("an invoice");
    let listed = rig.engine().transfers(keys).await.expect("the transfers").pop().expect("there is one");
    // Only the list has to say which coin of the wallet it is for.
    let without_coin = |transfer: Transfer| Transfer { receive_coin: None, ..transfer };
    assert_eq!(without_coin(made.transfer.clone()), without_coin(listed), "what was made is told as the list tells it");
    made
}

fn recipient(asset: &str, of: &Receive, amount: u64, witness: Option<Sat>) -> Recipient {
    Recipient { asset: asset.to_owned(), id: of.recipient.clone(), amount: units(amount), witness }
}

fn order(recipients: Vec<Recipient>) -> NewTransfer {
    NewTransfer { recipients, fee_rate: FeeRate::from_sat_per_vb(2), min_confirmations: 1, expires_at: in_an_hour() }
}

/// The whole way of a payment, up to the network.
async fn send(rig: &dyn Rig, from: &Client, to: &Client, recipients: Vec<Recipient>) {
    let engine = rig.engine();
    let ids: Vec<String> = recipients.iter().map(|recipient| recipient.id.clone()).collect();
    let begun = engine.begin_transfer(&from.keys, order(recipients)).await.expect("it begins");
    let signed = from.sign(&begun.psbt.to_string()).parse().expect("a PSBT");
    let consignments = engine.end_transfer(&from.keys, &signed).await.expect("it takes the signature");
    let again = engine.end_transfer(&from.keys, &signed).await.expect("and takes it again");
    assert_eq!(consignments, again);
    for id in &ids {
        for consignment in &consignments {
            let verdict = engine.accept(&to.keys, id, consignment.bytes.clone()).await.expect("it looks at it");
            assert_eq!(verdict, Verdict::Accepted);
        }
        engine.acknowledged(&from.keys, id).await.expect("it takes the word");
        engine.acknowledged(&from.keys, id).await.expect("and takes it again");
    }
}

async fn refresh(rig: &dyn Rig, clients: [&Client; 2]) {
    for client in clients {
        rig.engine().refresh(&client.keys).await.expect("it looks at the chain");
    }
}

async fn settled(rig: &dyn Rig, client: &Client, asset: &str) -> u64 {
    let assets = rig.engine().assets(&client.keys).await.expect("assets");
    assets.iter().find(|known| known.id == asset).map_or(0, |known| known.balance.settled.base_units())
}

async fn transfer_of(rig: &dyn Rig, client: &Client, recipient: &str) -> Transfer {
    let all = rig.engine().transfers(&client.keys).await.expect("transfers");
    all.into_iter().find(|one| one.recipient.as_deref() == Some(recipient)).expect("the transfer")
}

fn refusal<T: std::fmt::Debug>(done: Result<T, AssetError>) -> Refusal {
    match done {
        Err(AssetError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// Issued, sent onto a coin of the payee's and onto a new one, back again, and known after a restart.
async fn assets_move_and_add_up(rig: &mut dyn Rig) {
    let (alice, bob) = (Client::number(1), Client::number(2));
    assert_eq!(refusal(rig.engine().issue(&alice.keys, gold()).await), Refusal::NoFreeCoin);
    give_coins(rig, &alice.keys, 4).await;
    give_coins(rig, &bob.keys, 2).await;
    let asset = issue(rig, &alice.keys, &[600, 400]).await;
    assert_eq!((asset.ticker.as_deref(), asset.precision), (Some("GOLD"), 2));
    assert_eq!(asset.issued_supply, units(1_000));
    assert_eq!(asset.balance.settled, units(1_000));
    let on_coins: u64 = rig.engine().coins(&alice.keys).await.expect("coins").iter().map(sum_of_coin).sum();
    assert_eq!(on_coins, 1_000);

    let blind = invoice(rig, &bob.keys, Onto::OwnCoin, None, Some(100)).await;
    let read = rig.engine().read_invoice(&blind.invoice).expect("an invoice");
    assert_eq!((read.onto, read.amount, read.asset), (Onto::OwnCoin, Some(units(100)), None));
    assert_eq!((read.network, read.endpoints), (bitcoin::Network::Regtest, vec![ENDPOINT.to_owned()]));
    assert_eq!(read.recipient, blind.recipient);
    send(rig, &alice, &bob, vec![recipient(&asset.id, &blind, 100, None)]).await;
    assert_eq!(transfer_of(rig, &bob, &blind.recipient).await.status, TransferStatus::WaitingConfirmations);
    assert_eq!(settled(rig, &bob, &asset.id).await, 0);
    rig.mine(1).await;
    refresh(rig, [&alice, &bob]).await;
    assert_eq!((settled(rig, &alice, &asset.id).await, settled(rig, &bob, &asset.id).await), (900, 100));
    let received = transfer_of(rig, &bob, &blind.recipient).await;
    assert_eq!((received.status, received.kind), (TransferStatus::Settled, TransferKind::ReceiveBlind));
    assert_eq!(received.amounts, vec![units(100)]);

    rig.restart().await;
    let witness = invoice(rig, &alice.keys, Onto::NewCoin, Some(&asset.id), None).await;
    assert_eq!(rig.engine().read_invoice(&witness.invoice).expect("an invoice").onto, Onto::NewCoin);
    let made = Some(Sat::literal(1_000));
    send(rig, &bob, &alice, vec![recipient(&asset.id, &witness, 30, made)]).await;
    rig.mine(1).await;
    refresh(rig, [&alice, &bob]).await;
    assert_eq!((settled(rig, &alice, &asset.id).await, settled(rig, &bob, &asset.id).await), (930, 70));
}

fn gold() -> NewAsset {
    NewAsset { ticker: "GOLD".to_owned(), name: "Gold".to_owned(), precision: 0, amounts: vec![units(1)] }
}

fn sum_of_coin(coin: &sluice::ports::assets::ColoredCoin) -> u64 {
    coin.allocations.iter().map(|allocation| allocation.amount.base_units()).sum()
}

/// Two payees in one transaction; and what was given up can be sent again.
async fn many_at_once_and_a_change_of_mind(rig: &mut dyn Rig) {
    let (alice, bob) = (Client::number(3), Client::number(4));
    give_coins(rig, &alice.keys, 3).await;
    give_coins(rig, &bob.keys, 2).await;
    let asset = issue(rig, &alice.keys, &[50]).await;
    let engine = rig.engine();
    let first = invoice(rig, &bob.keys, Onto::OwnCoin, None, None).await;
    let never = engine.begin_transfer(&alice.keys, order(vec![recipient(&asset.id, &first, 50, None)])).await;
    let never = never.expect("it begins");
    let meanwhile = engine.begin_transfer(&alice.keys, order(vec![recipient(&asset.id, &first, 1, None)])).await;
    assert_eq!(refusal(meanwhile), Refusal::NotEnough { available: Amount::ZERO });
    engine.give_up(&alice.keys, never.batch).await.expect("it gives up");
    engine.give_up(&alice.keys, never.batch).await.expect("and gives up again");
    let second = invoice(rig, &bob.keys, Onto::OwnCoin, None, None).await;
    // To the one that it was given up for, and to another.
    let both = vec![recipient(&asset.id, &second, 10, None), recipient(&asset.id, &first, 5, None)];
    send(rig, &alice, &bob, both).await;
    rig.mine(1).await;
    refresh(rig, [&alice, &bob]).await;
    assert_eq!((settled(rig, &alice, &asset.id).await, settled(rig, &bob, &asset.id).await), (35, 15));
    let gone = engine.give_up(&alice.keys, transfer_of(rig, &alice, &second.recipient).await.batch).await;
    assert_eq!(refusal(gone), Refusal::TooLate);
}

/// What is wrong is refused, and changes nothing.
async fn bad_orders_are_refused(rig: &mut dyn Rig) {
    let (alice, bob) = (Client::number(5), Client::number(6));
    give_coins(rig, &alice.keys, 2).await;
    let asset = issue(rig, &alice.keys, &[10]).await;
    let engine = rig.engine();
    let invalid = |refusal| match refusal {
        Refusal::Invalid { what, .. } => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(invalid(engine.read_invoice("rgb:nothing").expect_err("no invoice")), "invoice");
    let named = |ticker: &str, name: &str, amounts: Vec<Amount>| NewAsset {
        ticker: ticker.to_owned(),
        name: name.to_owned(),
        precision: 0,
        amounts,
    };
    let bad = [("ticker", named("g", "G", vec![units(1)])), ("name", named("G", "", vec![units(1)]))];
    for (what, new) in bad.into_iter().chain([("amounts", named("G", "G", vec![]))]) {
        assert_eq!(invalid(refusal(engine.issue(&alice.keys, new).await)), what);
    }
    let witness = invoice(rig, &bob.keys, Onto::NewCoin, None, None).await;
    let to = |amount, sat| recipient(&asset.id, &witness, amount, Some(Sat::literal(sat)));
    let too_much = engine.begin_transfer(&alice.keys, order(vec![to(11, 1_000)])).await;
    assert_eq!(refusal(too_much), Refusal::NotEnough { available: units(10) });
    let low = engine.begin_transfer(&alice.keys, order(vec![to(1, 50_000)])).await;
    let low = refusal(low);
    assert!(matches!(low, Refusal::BitcoinLow { .. }), "{low:?}");
    let unknown = Recipient { asset: other_asset(), ..to(1, 1_000) };
    assert_eq!(
        refusal(engine.begin_transfer(&alice.keys, order(vec![unknown])).await),
        Refusal::UnknownAsset(other_asset())
    );
    let garbage = engine.accept(&bob.keys, &witness.recipient, b"nothing".to_vec()).await.expect("it looks at it");
    assert!(matches!(garbage, Verdict::Refused { .. }));
    send(rig, &alice, &bob, vec![to(10, 1_000)]).await;
    rig.mine(1).await;
    refresh(rig, [&alice, &bob]).await;
    assert_eq!((settled(rig, &alice, &asset.id).await, settled(rig, &bob, &asset.id).await), (0, 10));
}

/// An id of the right form that nobody has issued.
fn other_asset() -> String {
    "rgb:CJkb4YZw-jRiz2sk-~PARPio-wtVYI1c-XAEYCqO-wTfvRZ8".to_owned()
}

/// Scripts that were given away and never paid don't hide coins behind them.
async fn two_hundred_unused_scripts_hide_nothing(rig: &mut dyn Rig) {
    let alice = Client::number(7);
    for _ in 0..200 {
        invoice(rig, &alice.keys, Onto::NewCoin, None, None).await;
    }
    let next = rig.engine().next_index(&alice.keys).await.expect("an index");
    assert_eq!(next, 200);
    give_coins(rig, &alice.keys, 2).await;
    assert_eq!(rig.engine().coins(&alice.keys).await.expect("coins").len(), 2);
    let witness = invoice(rig, &alice.keys, Onto::NewCoin, None, None).await;
    let script = rig.engine().next_index(&alice.keys).await.expect("an index");
    assert_eq!(script, 203, "an index that the gateway has used is given away again: {}", witness.recipient);
}

/// What the engine knows leaves with its owner, who needs the password and nothing else.
async fn an_export_holds_everything_and_shows_nothing(rig: &mut dyn Rig) {
    const PASSWORD: &str = "a password of a test";
    let (alice, bob) = (Client::number(8), Client::number(9));
    give_coins(rig, &alice.keys, 2).await;
    give_coins(rig, &bob.keys, 1).await;
    let asset = issue(rig, &alice.keys, &[600, 400]).await;
    let blind = invoice(rig, &bob.keys, Onto::OwnCoin, None, None).await;
    send(rig, &alice, &bob, vec![recipient(&asset.id, &blind, 100, None)]).await;
    rig.mine(1).await;
    refresh(rig, [&alice, &bob]).await;
    let password = Secret::new(PASSWORD);
    for client in [&alice, &bob] {
        let sealed = rig.engine().export(&client.keys, &password).await.expect("it exports");
        for said in [asset.id.as_bytes(), b"GOLD", b"Gold of a test", PASSWORD.as_bytes()] {
            assert!(sealed.windows(said.len()).all(|part| part != said), "it is not sealed");
        }
        assert_eq!(rig.opened(&sealed, "a password of others", &client.keys).await, None);
        let there = rig.engine().assets(&client.keys).await.expect("assets");
        assert_eq!(rig.opened(&sealed, PASSWORD, &client.keys).await, Some(there));
    }
    // It goes on as before.
    assert_eq!((settled(rig, &alice, &asset.id).await, settled(rig, &bob, &asset.id).await), (900, 100));
    let again = invoice(rig, &bob.keys, Onto::NewCoin, None, None).await;
    send(rig, &alice, &bob, vec![recipient(&asset.id, &again, 1, Some(Sat::literal(1_000)))]).await;
}
