//! RGB assets by rgb-lib, on a real bitcoind with an indexer: sends between two wallets of a gateway beside the engine by itself, what
//! looking at a consignment takes, and many wallets in turn. And the list of transfers, which needs no engine.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::{Address, Network, Psbt};
use sluice::app::{self, Indexer};
use sluice::assets::rgb::{self, RgbEngine};
use sluice::clock::Clock;
use sluice::config::Config;
use sluice::domain::wallet::{Account, address_of};
use sluice::money::{Amount, FeeRate, Sat};
use sluice::ports::assets::{AssetEngine, NewAsset, NewReceive, NewTransfer, Onto, Recipient, Verdict};
use sluice::secret::Secret;
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};
use tempfile::TempDir;

use super::RUNS;
use super::api::{Bench, Wallet, load, runs};
use super::bitcoind::Bitcoind;
use super::start::resident_mebibytes;
use super::table::Table;

/// Sends of a run, one after the other: the calls for a wallet's assets wait for each other anyway.
const SENDS: usize = 10;
/// One for each send, because what comes back to the payer waits for a block.
const COINS: usize = RUNS * SENDS;
const COIN: Sat = Sat::literal(5_000);
/// What the payee's new coin holds.
const WITNESS: Sat = Sat::literal(1_000);
const WALLETS: u32 = 200;
const OPEN: usize = 64;
const ADDRESSES: u64 = 10_000;
const TRANSFERS: u32 = 100_000;
const LISTS: u64 = 5_000;
const ENDPOINT: &str = "rpc://127.0.0.1:3000/json-rpc";
const WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

pub async fn measure(table: &mut Table) {
    if let Some(bitcoind) = Bitcoind::start().await {
        let place = Place::new(bitcoind).await;
        addresses(table, &place).await;
        in_turn(table, &place).await;
        let alone = alone(&place).await;
        let driven = through_the_gateway(&place).await;
        let ratios = driven.sends.iter().zip(&alone.sends).map(|(driven, alone)| driven / alone * 100.0).collect();
        table.row("begin + sign + end of an asset send, rgb-lib alone", "ms", alone.sends, "");
        table.row("the same through the gateway", "ms", driven.sends, "");
        table.row("the gateway against rgb-lib alone, in time", "%", ratios, "");
        table.row(
            "looking at a consignment, rgb-lib alone",
            "ms",
            alone.looks,
            "of a payment in an asset that was issued before it, and no more",
        );
        table.row(
            "from the end of a send until it is broadcast",
            "ms",
            driven.ways,
            "brought, looked at, accepted, broadcast; both wallets at one gateway",
        );
    }
    lists(table).await;
}

/// A chain, and an indexer that tells of it.
struct Place {
    bitcoind: Bitcoind,
    indexer: Indexer,
    folder: TempDir,
    http: reqwest::Client,
}

/// Medians of the runs, in milliseconds.
#[derive(Default)]
struct Measured {
    sends: Vec<f64>,
    looks: Vec<f64>,
    ways: Vec<f64>,
}

impl Place {
    async fn new(bitcoind: Bitcoind) -> Self {
        let mut config = Config::default();
        config.chain.bitcoind = bitcoind.config();
        let indexer = app::start_indexer(&config).await.expect("an indexer");
        let folder = TempDir::with_prefix("sluice-bench-").expect("a temporary folder");
        let http = reqwest::Client::builder().tcp_nodelay(true).build().expect("a client");
        Self { bitcoind, indexer, folder, http }
    }

    fn assets(&self, name: &str) -> rgb::Config {
        rgb::Config {
            data_dir: self.folder.path().join(name),
            indexer: Some(self.indexer.url().to_owned()),
            open_wallets: OPEN,
            ..rgb::Config::default()
        }
    }

    fn wallet(&self, number: u32, base: &str) -> Wallet {
        Wallet::number(number, &self.http, base)
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1_000.0
}

fn sign(wallet: &Wallet, psbt: &str) -> Psbt {
    let mut psbt = Psbt::from_str(psbt).expect("a PSBT");
    wallet.signer.sign(&mut psbt).expect("it signs");
    psbt
}

fn units(n: u64) -> Amount {
    Amount::from_asset_units(n).expect("a small number")
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

// ---- an address for each customer ----

/// All of one wallet's, on a gateway without an engine and on one with it; then the current one, with its invoice.
async fn addresses(table: &mut Table, place: &Place) {
    for engine in [None, Some(RgbEngine::open(&place.assets("addresses"), Network::Regtest).expect("it opens"))] {
        let name = if engine.is_some() { "with an engine" } else { "without an engine" };
        let bench = Arc::new(Bench::start(None).await);
        let has_engine = engine.is_some();
        if let Some(engine) = engine {
            bench.use_engine(Arc::new(engine));
        }
        let (rates, tails) =
            runs(|| load(&bench, ADDRESSES, |bench, _| async move { bench.wallets[0].address().await })).await;
        table.row(format!("{ADDRESSES} addresses of one wallet, {name}"), "/s", rates, "SQLite");
        table.row("the same, p99", "ms", tails, "");
        if has_engine {
            let mut times = Vec::new();
            for _ in 0..RUNS {
                bench.wallets[0].address().await;
                let begun = Instant::now();
                until("it has an invoice", async || {
                    bench.wallets[0].get("/lightning/onchain-receive").await["asset_invoice"] != ""
                })
                .await;
                times.push(median(vec![begun.elapsed()]));
            }
            table.row("the current one of them with its RGB invoice, made for it", "ms", times, "");
        }
        Arc::into_inner(bench).expect("all load is over").stop().await;
    }
}

// ---- many wallets in turn ----

/// More wallets than are kept open, each asked to look at the chain: every call closes one and opens one.
async fn in_turn(table: &mut Table, place: &Place) {
    let engine = RgbEngine::open(&place.assets("in-turn"), Network::Regtest).expect("the engine opens");
    let wallets: Vec<_> = (0..WALLETS).map(|number| place.wallet(number, "").keys()).collect();
    let (memory, files) = (resident(), open_files());
    let (mut grown, mut held, mut times) = (Vec::new(), Vec::new(), Vec::new());
    // The first round makes the folders.
    for round in 0..=RUNS {
        let mut calls = Vec::new();
        for keys in &wallets {
            let begun = Instant::now();
            engine.refresh(keys).await.expect("it looks at the chain");
            calls.push(begun.elapsed());
        }
        if round > 0 {
            times.push(median(calls));
            grown.push(resident());
            held.push(open_files());
        }
    }
    let what = format!("{WALLETS} wallets in turn, {OPEN} kept open");
    table.row(format!("{what}: opening one and looking at the chain"), "ms", times, "");
    table.row(
        format!("{what}: resident memory after each round"),
        "MiB",
        grown,
        format!("before: {memory:.0} MiB; the indexer is part of the process"),
    );
    table.row(format!("{what}: open after each round"), "files", held, format!("before: {files:.0}"));
}

fn resident() -> f64 {
    resident_mebibytes(std::process::id())
}

fn open_files() -> f64 {
    let count = std::fs::read_dir("/proc/self/fd").expect("Linux").count();
    f64::from(u32::try_from(count).expect("not that many"))
}

// ---- the engine alone ----

async fn alone(place: &Place) -> Measured {
    let engine = RgbEngine::open(&place.assets("alone"), Network::Regtest).expect("the engine opens");
    let (payer, payee) = (place.wallet(1_001, ""), place.wallet(1_002, ""));
    let coins = u32::try_from(COINS).expect("few") + 1;
    for derived in payer.keys().scripts(Account::Colored, 0..coins) {
        place.bitcoind.pay(&to(&address_of(&derived.script, Network::Regtest)), COIN).await;
    }
    place.bitcoind.mine(1).await;
    until("the indexer has the block", async || {
        engine.learn_coins(&payer.keys(), coins).await.expect("it learns");
        engine.coins(&payer.keys()).await.expect("coins").len() == coins as usize
    })
    .await;
    let new = NewAsset {
        ticker: "BENCH".to_owned(),
        name: "Bench".to_owned(),
        precision: 0,
        amounts: vec![units(10); COINS],
    };
    let asset = engine.issue(&payer.keys(), new).await.expect("it issues").id;
    let mut measured = Measured::default();
    for _ in 0..RUNS {
        let (mut sends, mut looks) = (Vec::new(), Vec::new());
        for _ in 0..SENDS {
            let (send, look) = sent_alone(&engine, &payer, &payee, &asset).await;
            sends.push(send);
            looks.push(look);
        }
        measured.sends.push(median(sends));
        measured.looks.push(median(looks));
    }
    measured
}

fn to(address: &str) -> Address {
    Address::from_str(address).expect("an address").assume_checked()
}

fn in_an_hour() -> u64 {
    let then = Clock::System.now().after(Duration::from_secs(3_600));
    u64::try_from(then.unix_seconds()).expect("after 1970")
}

/// How long begin, signature and end took, and how long the payee's look.
async fn sent_alone(engine: &RgbEngine, payer: &Wallet, payee: &Wallet, asset: &str) -> (Duration, Duration) {
    let asked = NewReceive {
        onto: Onto::NewCoin,
        asset: None,
        amount: Some(units(1)),
        expires_at: in_an_hour(),
        min_confirmations: 1,
        endpoints: vec![ENDPOINT.to_owned()],
    };
    let invoice = engine.receive(&payee.keys(), asked).await.expect("an invoice");
    let recipient =
        Recipient { asset: asset.to_owned(), id: invoice.recipient.clone(), amount: units(1), witness: Some(WITNESS) };
    let order = NewTransfer {
        recipients: vec![recipient],
        fee_rate: FeeRate::from_sat_per_vb(2),
        min_confirmations: 1,
        expires_at: in_an_hour(),
    };
    let started = Instant::now();
    let begun = engine.begin_transfer(&payer.keys(), order).await.expect("it begins");
    let signed = sign(payer, &begun.psbt.to_string());
    let mut consignments = engine.end_transfer(&payer.keys(), &signed).await.expect("it takes the signature");
    let send = started.elapsed();
    let bytes = consignments.pop().expect("one asset").bytes;
    let started = Instant::now();
    let verdict = engine.accept(&payee.keys(), &invoice.recipient, bytes).await.expect("it looks at it");
    let look = started.elapsed();
    assert_eq!(verdict, Verdict::Accepted);
    engine.acknowledged(&payer.keys(), &invoice.recipient).await.expect("it is broadcast");
    (send, look)
}

// ---- through a gateway ----

async fn through_the_gateway(place: &Place) -> Measured {
    let mut config = Config::default();
    config.store.url = Secret::new(format!("sqlite:{}", place.folder.path().join("sluice.db").display()));
    config.http.listen = ([127, 0, 0, 1], 0).into();
    config.http.limits.enabled = false;
    config.operator.listen = ([127, 0, 0, 1], 0).into();
    config.chain.bitcoind = place.bitcoind.config();
    config.chain.poll_ms = 50;
    config.assets = place.assets("gateway");
    let running = app::start(&config).await.expect("the gateway starts");
    let base = format!("http://{}", running.api_addr);
    let (payer, payee) = (place.wallet(1_003, &base), place.wallet(1_004, &base));
    payee.post("/wallet/register", String::new()).await;
    let asset = issued(place, &payer).await;
    let mut measured = Measured::default();
    for _ in 0..RUNS {
        let (mut sends, mut ways) = (Vec::new(), Vec::new());
        for _ in 0..SENDS {
            let (send, way) = sent(&payer, &payee, &asset).await;
            sends.push(send);
            ways.push(way);
        }
        measured.sends.push(median(sends));
        measured.ways.push(median(ways));
    }
    running.stop().await;
    measured
}

/// Coins for the payer, and an asset of which each of them carries some.
async fn issued(place: &Place, payer: &Wallet) -> String {
    let colored = async |wallet: &Wallet| wallet.post("/wallet/btcbalance", String::new()).await;
    let registered = payer.post("/wallet/register", String::new()).await;
    let address = registered["address"].as_str().expect("an address");
    place.bitcoind.pay(&to(address), Sat::literal(1_000_000)).await;
    place.bitcoind.mine(1).await;
    until("it has bitcoin", async || colored(payer).await["vanilla"]["spendable"] == 1_000_000).await;
    let coins = COINS + 1;
    let body = format!(r#"{{"num":{coins},"size":{COIN},"fee_rate":2}}"#);
    let begun = payer.post("/wallet/createutxosbegin", body).await;
    let signed = sign(payer, begun.as_str().expect("a PSBT"));
    payer.post("/wallet/createutxosend", format!(r#"{{"signed_psbt":"{signed}"}}"#)).await;
    place.bitcoind.mine(1).await;
    let all = COIN.to_u64() * u64::try_from(coins).expect("few");
    until("it has coins for assets", async || colored(payer).await["colored"]["settled"] == all).await;
    let body = format!(r#"{{"ticker":"BENCH","name":"Bench","amounts":{:?}}}"#, [10; COINS]);
    let asset = payer.post("/wallet/issueassetnia", body).await;
    asset["asset_id"].as_str().expect("an id").to_owned()
}

/// How long begin, signature and end took, and how long it was from there until the transaction was out.
async fn sent(payer: &Wallet, payee: &Wallet, asset: &str) -> (Duration, Duration) {
    let invoice = payee.post("/wallet/witnessreceive", r#"{"amount":1}"#.to_owned()).await;
    let order =
        format!(r#"{{"invoice":{},"asset_id":"{asset}","fee_rate":2,"min_confirmations":1}}"#, invoice["invoice"]);
    let started = Instant::now();
    let begun = payer.post("/wallet/sendbegin", order).await;
    let signed = sign(payer, begun.as_str().expect("a PSBT"));
    let ended = payer.post("/wallet/sendend", format!(r#"{{"signed_psbt":"{signed}"}}"#)).await;
    let send = started.elapsed();
    let read = format!("/onchain-send/{}", ended["send_id"].as_str().expect("an id"));
    let started = Instant::now();
    until("it is out", async || payer.get(&read).await["status"] == "BROADCASTED").await;
    (send, started.elapsed())
}

// ---- the list of transfers ----

/// Pages from random places of a long history, which is written straight into the table.
async fn lists(table: &mut Table) {
    let bench = Arc::new(Bench::start(None).await);
    bench.use_assets();
    fill_transfers(Path::new(&bench.database()), &bench.wallets[0].id(), TRANSFERS).await;
    let list = |bench: Arc<Bench>, _| async move {
        let before = rand::random_range(1_000..TRANSFERS);
        let path = format!("/wallet/listtransfers?limit=50&cursor={before}");
        let page = bench.wallets[0].post(&path, r#"{"asset_id":"rgb:bench"}"#.to_owned()).await;
        assert_eq!(page.as_array().map(Vec::len), Some(50), "{page}");
    };
    let (rates, tails) = runs(|| load(&bench, LISTS, list)).await;
    table.row(format!("list 50 at a random place of {TRANSFERS} transfers of an asset"), "/s", rates, "SQLite");
    table.row("the same, p99", "ms", tails, "");
    Arc::into_inner(bench).expect("all load is over").stop().await;
}

/// Payments of one unit that were received long ago.
async fn fill_transfers(database: &Path, wallet: &str, count: u32) {
    let mut line =
        SqliteConnection::connect(&format!("sqlite://{}", database.display())).await.expect("the file opens");
    line.execute("PRAGMA busy_timeout = 60000").await.expect("it waits");
    let rows = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
         INSERT INTO asset_transfers (wallet_id, idx, batch, request_id, kind, status, asset_id, requested, amounts, txid, \
         recipient_id, receive_coin, endpoints, created_at, updated_at, height, reorged) \
         SELECT '{wallet}', i, i, printf('%08x-0000-7000-8000-%012x', i, i), 'receive_witness', 'settled', 'rgb:bench', 1, '[1]', \
         printf('%064x', i), printf('bcrt:wvout:%040x', i), printf('%064x', i) || ':1', '[\"{ENDPOINT}\"]', i, i, 100, 0 FROM n"
    );
    line.execute(AssertSqlSafe(rows)).await.expect("the rows are written");
    line.close().await.expect("it closes");
}
