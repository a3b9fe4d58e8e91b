//! Channels, peers, and the node's own wallet.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Address, Network, ScriptBuf, WPubkeyHash};
use sluice::domain::movement::Owner;
use sluice::ids::RequestId;
use sluice::ledger::Account;
use sluice::money::{Amount, FeeRate, Sat};
use sluice::ports::lightning::{
    Asked, Channel, CloseHow, ForwardingFees, Movement, NewChannel, OnchainOrder, OnchainQuote, Paid, PayOutcome,
};

use super::{AMOUNT, World, minus, payment, plus};
use crate::harness::peer::{eventually, eventually_shown};

pub(super) const CAPACITY: Sat = Sat::literal(400_000);
pub(super) const PUSHED: Amount = Amount::from_sat(Sat::literal(100_000));
const KEPT: Amount = Amount::from_sat(Sat::literal(300_000));
/// What opening and closing may cost on a regtest, all together.
const ONCHAIN_FEES: Sat = Sat::literal(30_000);
/// What the opener puts into the two outputs by which a closing is bumped: some count it as theirs, others do not.
const ANCHORS: Amount = Amount::from_sat(Sat::literal(660));
/// Enough for a channel to be in use.
pub(super) const BURIED: u32 = 6;
/// A force close locks the coins for less.
pub(super) const LOCK: u32 = 150;

async fn onchain(w: &World) -> Sat {
    let balance = w.node().balance().await.unwrap();
    Sat::sum([balance.onchain_confirmed, balance.onchain_unconfirmed]).unwrap()
}

async fn channels_with(w: &World, peer: PublicKey) -> Vec<Channel> {
    let channels = w.node().channels().await.unwrap();
    channels.into_iter().filter(|channel| channel.peer == peer).collect()
}

fn about(was: Sat, is: Sat) -> bool {
    is <= was && was.checked_sub(is).is_some_and(|cost| cost <= ONCHAIN_FEES)
}

/// Nothing is closing any more, and about this much is on-chain. It may take some blocks more.
async fn coins_come_back(w: &World, expected: Sat) {
    eventually_shown(&format!("about {expected} are back"), async || {
        let balance = w.node().balance().await.unwrap();
        let is_over = balance.closing == Sat::ZERO && about(expected, balance.onchain_confirmed);
        if !is_over {
            w.rig.mine(1).await;
        }
        if is_over { Ok(()) } else { Err(balance) }
    })
    .await;
}

/// Mines until none of the node's coins is on its way: what a send costs depends on which coins there are.
async fn at_rest(w: &World) {
    eventually_shown("no coin is on its way", async || {
        w.rig.mine(1).await;
        let balance = w.node().balance().await.unwrap();
        let is_over = !balance.is_moving && balance.onchain_unconfirmed == Sat::ZERO && balance.closing == Sat::ZERO;
        if is_over { Ok(()) } else { Err(balance) }
    })
    .await;
}

/// Opens one to the far node, which is connected first, and waits until it is in use. Answers its id.
pub(super) async fn open(w: &World) -> String {
    let far = w.far().id();
    assert_eq!(w.node().connect(far, &w.far().address()).await, Ok(Asked::Done(())));
    let new = NewChannel { peer: far, amount: CAPACITY, push: PUSHED, announced: false };
    let opened = w.node().open_channel(&new).await.unwrap();
    assert!(matches!(opened, Asked::Done(_)), "{opened:?}");
    w.rig.something_waits().await;
    w.rig.mine(BURIED).await;
    eventually("the channel is in use", async || {
        channels_with(w, far).await.into_iter().find(|channel| channel.usable).map(|channel| channel.id)
    })
    .await
}

pub async fn a_channel_shows_what_it_can_do(w: &World) {
    let balance = w.node().balance().await.unwrap();
    let near = w.near().id();
    let [channel] = &channels_with(w, near).await[..] else { panic!("one channel") };
    assert!(channel.usable);
    assert!(channel.funding.is_some());
    let capacity = Amount::from_sat(channel.capacity);
    assert!(!channel.can_send.is_zero() && !channel.can_receive.is_zero());
    assert!(plus(channel.can_send, channel.can_receive) <= capacity);
    assert!(channel.can_send <= balance.channels && balance.channels <= capacity);
    assert_eq!((balance.can_send, balance.can_receive), (channel.can_send, channel.can_receive));
    assert_eq!((balance.closing, balance.in_flight), (Sat::ZERO, Amount::ZERO));
    let fees = ForwardingFees { base: Amount::from_sat(Sat::literal(2)), parts_per_million: 250 };
    assert_eq!(w.node().set_fees(&channel.id, fees).await, Ok(Asked::Done(())));
    assert_eq!(channels_with(w, near).await[0].fees, Some(fees));
    let unknown = w.node().set_fees(&"00".repeat(32), fees).await.unwrap();
    assert!(matches!(unknown, Asked::Refused { .. }), "{unknown:?}");
}

pub async fn the_node_knows_its_peers_and_itself(w: &World) {
    let info = w.node().info().await.unwrap();
    assert!(info.ready);
    w.rig.mine(1).await;
    eventually("it sees the block", async || (w.node().info().await.unwrap().height > info.height).then_some(())).await;
    let peers = w.node().peers().await.unwrap();
    assert!(peers.iter().any(|peer| peer.id == w.near().id() && peer.connected), "{peers:?}");
    assert_eq!(w.node().connect(w.near().id(), &w.near().address()).await, Ok(Asked::Done(())), "again");
}

pub async fn a_channel_is_opened_and_closed_and_the_coins_come_back(w: &World) {
    w.rig.fund(Sat::literal(1_000_000)).await;
    let (coins, (in_channels, _)) = (onchain(w).await, w.money().await);
    let id = open(w).await;
    let [channel] = &channels_with(w, w.far().id()).await[..] else { panic!("one channel") };
    assert_eq!((channel.capacity, channel.announced, channel.is_outbound), (CAPACITY, false, true));
    assert!(channel.can_send <= KEPT && channel.can_receive <= PUSHED);
    let (with_it, _) = w.money().await;
    let ours = minus(with_it, in_channels);
    assert!(ours <= KEPT && minus(KEPT, ours) <= ANCHORS, "{ours} of {KEPT}");
    let left = coins.checked_sub(CAPACITY).unwrap();
    assert!(about(left, onchain(w).await), "{left} and {}", onchain(w).await);

    assert_eq!(w.node().close_channel(&id, CloseHow::Cooperative).await, Ok(Asked::Done(())));
    w.rig.something_waits().await;
    w.rig.mine(BURIED).await;
    let expected = left.checked_add(Sat::new(KEPT.sat_floor()).unwrap()).unwrap();
    let none_left = async || {
        let left = channels_with(w, w.far().id()).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    };
    eventually_shown("the channel is gone", none_left).await;
    coins_come_back(w, expected).await;
    w.has(in_channels).await;
}

pub async fn a_channel_is_closed_by_force(w: &World) {
    w.rig.fund(Sat::literal(1_000_000)).await;
    let coins = onchain(w).await;
    let (in_channels, _) = w.money().await;
    let id = open(w).await;
    assert_eq!(w.node().close_channel(&id, CloseHow::Force).await, Ok(Asked::Done(())));
    eventually("the coins are locked", async || {
        let locked = w.node().balance().await.unwrap().closing;
        about(Sat::new(KEPT.sat_floor()).unwrap(), locked).then_some(())
    })
    .await;
    assert_eq!(channels_with(w, w.far().id()).await.iter().filter(|channel| channel.usable).count(), 0);
    w.rig.something_waits().await;
    w.rig.mine(LOCK).await;
    let expected = coins.checked_sub(Sat::new(PUSHED.sat_floor()).unwrap()).unwrap();
    coins_come_back(w, expected).await;
    w.has(in_channels).await;
}

pub async fn what_can_not_be_opened_is_refused(w: &World) {
    let node = w.node();
    let coins = onchain(w).await;
    let key = SecretKey::from_slice(&rand::random::<[u8; 32]>()).unwrap();
    let nobody = PublicKey::from_secret_key(&Secp256k1::new(), &key);
    // Nobody listens on this port.
    let connected = node.connect(nobody, "127.0.0.1:1").await.unwrap();
    assert!(matches!(connected, Asked::Refused { .. }), "{connected:?}");
    let new = |peer, amount| NewChannel { peer, amount, push: Amount::ZERO, announced: false };
    let stranger = node.open_channel(&new(nobody, CAPACITY)).await.unwrap();
    assert!(matches!(stranger, Asked::Refused { .. }), "{stranger:?}");
    let too_much = coins.checked_add(Sat::literal(1)).unwrap().max(CAPACITY);
    let unfunded = node.open_channel(&new(w.near().id(), too_much)).await.unwrap();
    assert!(matches!(unfunded, Asked::Refused { .. }), "{unfunded:?}");
    let unknown = node.close_channel(&"00".repeat(32), CloseHow::Cooperative).await.unwrap();
    assert!(matches!(unknown, Asked::Refused { .. }), "{unknown:?}");
    assert_eq!(onchain(w).await, coins);
}

pub async fn coins_are_sent_and_the_reserve_is_kept(w: &World) {
    let node = w.node();
    w.rig.fund(Sat::literal(500_000)).await;
    at_rest(w).await;
    let one = node.onchain_address().await.unwrap();
    assert_ne!(one, node.onchain_address().await.unwrap());
    let script = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(rand::random()));
    let elsewhere = Address::from_script(&script, Network::Regtest).unwrap();
    let balance = node.balance().await.unwrap();
    let rate = FeeRate::from_sat_per_vb(2);
    let free = balance.onchain_confirmed.checked_sub(balance.reserve).unwrap();
    let order = |to: &Address, amount| OnchainOrder {
        id: RequestId::fresh(),
        to: to.clone(),
        amount,
        fee_rate: rate,
        max_fee: Sat::literal(10_000),
    };
    let refused = node.onchain_send(&order(&elsewhere, free)).await.unwrap();
    assert!(matches!(refused, Asked::Refused { .. }), "there is no fee left: {refused:?}");
    let short = node.onchain_quote(&elsewhere, free, rate).await.unwrap();
    assert!(matches!(short, OnchainQuote::Short { .. }), "there is no fee left: {short:?}");
    assert_eq!(node.onchain_quote(&one, Sat::literal(1_000), rate).await.unwrap(), OnchainQuote::OwnAddress);
    let OnchainQuote::Fee(fee) = node.onchain_quote(&elsewhere, Sat::literal(100_000), rate).await.unwrap() else {
        panic!("there is enough for that");
    };
    let costly =
        OnchainOrder { max_fee: fee.checked_sub(Sat::literal(1)).unwrap(), ..order(&elsewhere, Sat::literal(100_000)) };
    let refused = node.onchain_send(&costly).await.unwrap();
    assert!(matches!(refused, Asked::Refused { .. }), "it costs more than it may: {refused:?}");

    let before = onchain(w).await;
    let wanted = OnchainOrder { max_fee: fee, ..costly };
    let Asked::Done(sent) = node.onchain_send(&wanted).await.unwrap() else { panic!("there is enough for that") };
    assert_eq!(sent.fee, fee, "it costs what was said");
    // However often, and whatever comes in between: one send.
    let again = futures::future::join_all((0..4).map(|_| node.onchain_send(&wanted))).await;
    assert!(again.into_iter().all(|again| again.unwrap() == Asked::Done(sent)));
    w.rig.restart().await;
    let node = w.node();
    assert_eq!(node.onchain_send(&wanted).await.unwrap(), Asked::Done(sent));
    w.rig.something_waits().await;
    w.rig.mine(1).await;
    let left = before.checked_sub(Sat::literal(100_000)).and_then(|left| left.checked_sub(fee)).unwrap();
    eventually("the coins are gone", async || {
        let now = onchain(w).await;
        (now == left).then_some(())
    })
    .await;
}

pub async fn what_waits_for_a_block_is_replaced_and_sent_once(w: &World) {
    let node = w.node();
    w.rig.fund(Sat::literal(500_000)).await;
    at_rest(w).await;
    let script = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(rand::random()));
    let to = Address::from_script(&script, Network::Regtest).unwrap();
    let rate = FeeRate::from_sat_per_vb;
    let amount = Sat::literal(100_000);
    let order = OnchainOrder { id: RequestId::fresh(), to, amount, fee_rate: rate(2), max_fee: Sat::literal(10_000) };
    let unknown = node.onchain_bump(order.id, rate(20)).await.unwrap();
    assert!(matches!(unknown, Asked::Refused { .. }), "nothing was sent: {unknown:?}");
    let before = onchain(w).await;
    let Asked::Done(first) = node.onchain_send(&order).await.unwrap() else { panic!("there is enough for that") };
    let Asked::Done(second) = node.onchain_bump(order.id, rate(20)).await.unwrap() else { panic!("it waits") };
    assert!(second.txid != first.txid && second.fee > first.fee, "{first:?} {second:?}");
    let lower = node.onchain_bump(order.id, rate(3)).await.unwrap();
    assert!(matches!(lower, Asked::Refused { .. }), "it pays more already: {lower:?}");
    assert_eq!(node.onchain_send(&order).await.unwrap(), Asked::Done(second), "it is the same send");
    w.rig.restart().await;
    assert_eq!(w.node().onchain_send(&order).await.unwrap(), Asked::Done(second));
    w.rig.something_waits().await;
    w.rig.mine(1).await;
    let left = before.checked_sub(amount).and_then(|left| left.checked_sub(second.fee)).unwrap();
    eventually("the coins are gone", async || (onchain(w).await == left).then_some(())).await;
    eventually("it is told", async || {
        let is_it = |movement: &Movement| {
            matches!(movement, Movement::Sent { txid, order: by, .. } if *txid == second.txid && *by == Some(order.id))
        };
        told(w).await.iter().any(is_it).then_some(())
    })
    .await;
    let late = w.node().onchain_bump(order.id, rate(50)).await.unwrap();
    assert!(matches!(late, Asked::Refused { .. }), "it is in a block: {late:?}");
}

/// Everything that it has ever told.
pub(super) async fn told(w: &World) -> Vec<Movement> {
    let told = w.node().movements(0, 1_000).await.unwrap();
    assert!(told.is_sorted_by_key(|(number, _)| *number));
    told.into_iter().map(|(_, movement)| movement).collect()
}

/// What these entries put into an account of the node, in millisatoshi.
pub(super) fn fold(told: &[Movement], account: &Account) -> i64 {
    let postings = told.iter().flat_map(|one| one.postings(RequestId::of_movement(&one.key()), Owner::Capital));
    let signed = postings.map(|posting| {
        let amount = posting.money.amount.as_bigint();
        i64::from(posting.debit == *account) * amount - i64::from(posting.credit == *account) * amount
    });
    signed.sum()
}

/// The last of its group: everything before it is in what was told, and nothing before it was paid.
pub async fn what_it_tells_adds_up_to_what_it_has(w: &World) {
    w.rig.fund(Sat::literal(1_000_000)).await;
    let id = open(w).await;
    let invoice = w.far().invoice(Some(AMOUNT)).await;
    let outcome = w.pay(&payment(&invoice, AMOUNT)).await;
    let PayOutcome::Succeeded(Paid { fee, .. }) = outcome else { panic!("{outcome:?}") };
    eventually("the payment has left the channel", async || {
        w.node().balance().await.unwrap().in_flight.is_zero().then_some(())
    })
    .await;
    assert_eq!(w.node().close_channel(&id, CloseHow::Cooperative).await, Ok(Asked::Done(())));
    w.rig.something_waits().await;
    let balance = eventually_shown("nothing moves any more", async || {
        w.rig.mine(1).await;
        let balance = w.node().balance().await.unwrap();
        if balance.is_moving { Err(balance) } else { Ok(balance) }
    })
    .await;
    let all = told(w).await;
    let onchain = plus(Amount::from_sat(balance.onchain_confirmed), Amount::from_sat(balance.onchain_unconfirmed));
    assert_eq!(fold(&all, &Account::Onchain), onchain.as_bigint(), "{all:#?}");
    assert_eq!((fold(&all, &Account::Closing), balance.closing), (0, Sat::ZERO), "{all:#?}");
    let paid = plus(AMOUNT, fee).as_bigint();
    assert_eq!(fold(&all, &Account::Channels) - paid, balance.channels.as_bigint(), "{all:#?}");
    assert_ne!(fold(&all, &Account::Rounding), 0, "the payment has left a fraction");
    w.rig.restart().await;
    assert_eq!(told(w).await, all, "it is told once, and stays");
}
