//! A node that hears of the network from a rapid gossip sync server, behind a bitcoind that has only the newest blocks.

use std::time::{Duration, Instant};

use lightning_invoice::Bolt11Invoice;
use serde_json::{Value, json};
use sluice::app::LoneNode;
use sluice::clock::Clock;
use sluice::config::Config;
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{
    Asked, Destination, LightningNode as _, Outgoing, Paid, PayOutcome, Payment, PaymentHash, PaymentId, Preimage,
    Quote,
};
use sluice::secret::Secret;
use tempfile::TempDir;

use crate::harness::bitcoind::Bitcoind;
use crate::harness::peer::{LdkPeer, Opening, Ported, eventually};
use crate::harness::ports::free_address;
use crate::harness::snapshot::{Announced, Mood, SnapshotServer, snapshot};

const CHANNEL: Opening = Opening { amount: Sat::literal(2_000_000), push: msat(1_000_000_000), announced: true };
const AMOUNT: Amount = msat(20_000_000);
/// What the peer in the middle takes, of 20,000 sat: a base of 1,000 msat, and 500 millionths.
const FEE: Amount = msat(11_000);
/// A pruned bitcoind keeps the newest 288 blocks, and files of some two hundred.
const BURIED: u32 = 450;
/// Blocks that the peers take in at a time.
const STRIDE: u32 = 50;

const fn msat(msat: u64) -> Amount {
    match Amount::from_msat(msat) {
        Ok(amount) => amount,
        Err(_) => panic!("a literal that fits"),
    }
}

fn config(bitcoind: &Bitcoind, folder: &TempDir, server: &SnapshotServer) -> Config {
    let mut config = Config::default();
    config.store.url = Secret::new(format!("sqlite:{}", folder.path().join("node.db").display()));
    config.chain.bitcoind = bitcoind.config();
    config.ldk.enabled = true;
    config.ldk.listen = Some(free_address());
    config.ldk.seed_file = folder.path().join("node.seed");
    config.ldk.poll_ms = 100;
    config.ldk.rapid_gossip_sync = Some(server.url.clone());
    config.ldk.rapid_gossip_sync_seconds = 1;
    config
}

/// Block, place in the block, and output.
async fn scid(bitcoind: &Bitcoind, funding: &str) -> u64 {
    let (txid, output) = funding.split_once(':').expect("an outpoint");
    for height in (1..=bitcoind.tip().await.height).rev() {
        let block = bitcoind.rpc("getblock", json!([bitcoind.block_hash(height).await])).await;
        let place = block["tx"].as_array().expect("a list").iter().position(|tx| *tx == txid);
        if let Some(place) = place {
            let place = u64::try_from(place).expect("a number");
            return u64::from(height) << 40 | place << 16 | output.parse::<u64>().expect("a number");
        }
    }
    panic!("{funding} is in no block");
}

/// The channel between them, as a server would tell of it.
async fn announced(bitcoind: &Bitcoind, near: &LdkPeer, far: &LdkPeer) -> Announced {
    let funding = near.channels_with(far.id()).await.pop().and_then(|channel| channel.funding).expect("a funding");
    Announced {
        scid: scid(bitcoind, &funding).await,
        ends: [near.id(), far.id()],
        base_msat: 1_000,
        proportional_millionths: 500,
        cltv_delta: 72,
        most_msat: 1_900_000_000,
    }
}

/// Buries what is there until bitcoind has let go of its blocks. The peers have seen them before.
async fn prune(bitcoind: &Bitcoind, peers: [&LdkPeer; 2]) {
    let height = bitcoind.tip().await.height;
    for _ in 0..BURIED / STRIDE {
        bitcoind.mine(STRIDE).await;
        let tip = bitcoind.tip().await.height;
        for peer in peers {
            eventually("the peer sees the blocks", async || {
                peer.sync().await;
                (peer.height().await == tip).then_some(())
            })
            .await;
        }
    }
    bitcoind.rpc("pruneblockchain", json!([height + BURIED - 288])).await;
    let gone = bitcoind.try_rpc("getblock", json!([bitcoind.block_hash(height).await])).await;
    assert!(gone.as_ref().is_err_and(|why| why.contains("pruned")), "{gone:?}");
}

fn now() -> u32 {
    u32::try_from(Clock::System.now().unix_seconds()).expect("after 1970 and before 2106")
}

/// No invoice: the ways that its maker knows would be in it.
async fn quote(lone: &LoneNode, far: &LdkPeer, amount: Amount) -> Quote {
    let way = Destination::Keysend { to: far.id(), preimage: Preimage::fresh() };
    lone.node.quote(&way, amount).await.expect("an answer")
}

async fn pay(lone: &LoneNode, far: &LdkPeer) -> Amount {
    let invoice = far.invoice(Some(AMOUNT), "two hops away").await;
    let hash = PaymentHash(invoice.parse::<Bolt11Invoice>().expect("an invoice").payment_hash().0);
    let id = PaymentId(rand::random());
    let payment = Payment { id, hash, destination: Destination::Bolt11(invoice), amount: AMOUNT, max_fee: FEE };
    lone.node.pay(&payment).await;
    eventually("it is paid", async || match lone.node.outgoing(id, hash).await.expect("an answer") {
        Outgoing::Known(PayOutcome::Succeeded(Paid { fee, .. })) => Some(fee),
        Outgoing::Known(PayOutcome::Failed(why)) => panic!("{why:?}"),
        Outgoing::Nothing | Outgoing::Known(PayOutcome::Pending | PayOutcome::Unknown { .. }) => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pruned_bitcoind_the_ways_come_from_a_server_and_one_that_is_of_no_use_changes_nothing() {
    let Some(bitcoind) = Bitcoind::start_with(&["-prune=1", "-fastprune"]).await else { return };
    let Some(near) = LdkPeer::start_with(&bitcoind, &["--alias", "near", "--sloppy-fees", "1000:500"]).await else {
        return;
    };
    let Some(far) = LdkPeer::start(&bitcoind, "far").await else { return };
    near.fund(&bitcoind, Sat::literal(6_000_000)).await;
    near.open_channel(&bitcoind, &far, far.listens(), CHANNEL).await;
    let announced = announced(&bitcoind, &near, &far).await;
    prune(&bitcoind, [&near, &far]).await;

    let server = SnapshotServer::start(Mood::Fails).await;
    let folder = TempDir::with_prefix("sluice-rapid-").expect("a temporary folder");
    let config = config(&bitcoind, &folder, &server);
    let lone = LoneNode::start(&config).await.expect("the node starts");
    // Whoever has connected remembers where: else it waits for the other to come again after its next start.
    assert_eq!(lone.node.connect(near.id(), near.listens()).await, Ok(Asked::Done(())));
    let address = lone.node.listen_addr().expect("it listens").to_string();
    near.open_channel(&bitcoind, &Ported(lone.node.as_ref()), &address, CHANNEL).await;

    let made_at = now();
    let whole = snapshot(made_at, &announced);
    let cut_off = whole[..whole.len() - 1].to_vec();
    let moods = [
        Mood::Fails,
        Mood::Says(b"<html>".to_vec()),
        Mood::Says(cut_off),
        Mood::Says(vec![0; 20_000_000]),
        Mood::Redirects(whole.clone()),
    ];
    for (amount, mood) in (1_u64..).map(|times| msat(times * 3_000_000)).zip(moods) {
        server.tries(mood.clone()).await;
        // Another amount each time: an answer is good for some seconds.
        let known = quote(&lone, &far, amount).await;
        assert!(matches!(known, Quote::NoRoute { .. }), "{known:?} after {mood:?}");
    }
    assert!(server.paths().iter().all(|path| path == "/snapshot/0"), "{:?}", server.paths());

    server.become_(Mood::Says(whole));
    let fee = eventually("there is a way", async || match quote(&lone, &far, AMOUNT).await {
        Quote::Fee(fee) => Some(fee),
        Quote::NoRoute { .. } => None,
    })
    .await;
    assert_eq!((fee, pay(&lone, &far).await), (FEE, FEE));
    let next = format!("/snapshot/{made_at}");
    eventually("it asks for what is new since then", async || server.paths().contains(&next).then_some(())).await;

    // Nobody waits for a server that hangs: neither who stops the node, nor who starts it and pays.
    server.become_(Mood::Hangs);
    let asked = server.paths().len();
    eventually("it is asked", async || (server.paths().len() > asked).then_some(())).await;
    let began = Instant::now();
    lone.stop().await;
    assert!(began.elapsed() < Duration::from_secs(30), "its answer was waited for");
    let lone = LoneNode::start(&config).await.expect("the node starts again");
    eventually("the channel is in use again", async || {
        let channels = lone.node.channels().await.expect("an answer");
        channels.iter().any(|channel| channel.usable).then_some(())
    })
    .await;
    assert_eq!(pay(&lone, &far).await, FEE);
    assert_eq!(server.paths().last(), Some(&next), "what it knows is in its file");
    assert_ne!(bitcoind.rpc("getblockchaininfo", json!([])).await["pruned"], Value::Bool(false));
    lone.stop().await;
}
