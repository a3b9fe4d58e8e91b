//! kill -9 at random moments while wallets issue assets, send them to each other and receive them, at least half of the time in the
//! middle of what the library writes: every wallet opens again, and every asset is where the rows and an independent wallet say.
//!
//! `SLUICE_SEED` names the sequence, `SLUICE_ASSET_KILLS` the number of kills; `make soak` goes on for as long as it is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sluice::money::Sat;

use crate::crash::random::number_from;
use crate::crash::say;
use crate::harness::process::{Answer, Call, DEADLINE};
use crate::harness::rgb_wallet::{Asked, RgbWallet};
use crate::harness::rig::{Client, Database, parse_address};
use crate::stories::asset_scene::{Scene, scene};

const WALLETS: u32 = 3;
const KILLS: u64 = 20;
const COINS: u32 = 12;
/// How long a call of the library is waited for, to kill in the middle of it.
const PATIENCE: Duration = Duration::from_secs(4);
/// What is there while the library has its state loaded, or writes its database.
const TRACES: [&str; 2] = ["rgb_runtime.lock", "rgb_lib_db-journal"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_what_the_library_writes_loses_no_asset() {
    let kills = number_from("SLUICE_ASSET_KILLS").unwrap_or(KILLS);
    run(Database::Sqlite, Until::Kills(usize::try_from(kills).expect("a number"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_kills_in_the_middle_of_what_the_library_writes() {
    match number_from("SLUICE_SOAK_SECONDS") {
        Some(seconds) => {
            let half = Duration::from_secs(seconds) / 2;
            run(Database::Sqlite, Until::Time(half)).await;
            run(Database::Postgres, Until::Time(half)).await;
        }
        None => say("soak_kills_in_the_middle: SLUICE_SOAK_SECONDS is not set (see `make soak`)"),
    }
}

#[derive(Clone, Copy)]
enum Until {
    Kills(usize),
    Time(Duration),
}

struct Field {
    scene: Scene,
    clients: Vec<Client>,
    over: AtomicBool,
    issued: AtomicUsize,
    sent: AtomicUsize,
    invoiced: AtomicUsize,
}

/// What the kills were.
#[derive(Default)]
struct Killed {
    all: usize,
    inside: usize,
}

async fn run(database: Database, until: Until) -> Option<()> {
    let scene = scene(database).await?;
    let alice = RgbWallet::start(&scene.node, scene.esplora.as_ref().expect("an indexer")).await?;
    scene.gateway.wait_synced(&scene.node).await;
    let clients: Vec<Client> = (1..=WALLETS).map(Client::number).collect();
    for client in &clients {
        if client.keys.id() != scene.client.keys.id() {
            scene.join(client).await;
        }
        scene.make_coins_for(client, json!({ "num": COINS, "size": 5_000, "fee_rate": 2 })).await;
    }
    let seed = number_from("SLUICE_SEED").unwrap_or(1);
    let count = || AtomicUsize::new(0);
    let field =
        Field { scene, clients, over: AtomicBool::new(false), issued: count(), sent: count(), invoiced: count() };
    let people = field.clients.iter().enumerate().map(|(number, client)| {
        let seed = seed * 1_000 + u64::try_from(number).expect("a number");
        field.keep_busy(number, client, StdRng::seed_from_u64(seed))
    });
    let (killed, (), _) = tokio::join!(
        field.keep_killing(until, StdRng::seed_from_u64(seed)),
        field.keep_mining(),
        futures::future::join_all(people)
    );
    let read = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    say(&format!(
        "kills during asset work on {database:?}: {} (seed {seed}), {} of them inside the library; {} assets issued, {} sends, {} \
         invoices; every wallet opened after each",
        killed.all,
        killed.inside,
        read(&field.issued),
        read(&field.sent),
        read(&field.invoiced)
    ));
    assert!(killed.inside * 2 >= killed.all, "{} of {} were inside the library", killed.inside, killed.all);
    assert!(read(&field.issued) > 0 && read(&field.sent) > 0, "the wallets had nothing to do");
    field.come_to_rest().await;
    field.account(&alice).await;
    field.scene.end().await;
    Some(())
}

impl Field {
    fn folders(&self) -> Vec<PathBuf> {
        let data = self.scene.gateway.site.folder().join("assets");
        self.clients
            .iter()
            .map(|client| data.join(client.keys.id().to_string()).join(client.keys.fingerprint()))
            .collect()
    }

    /// Whether the library is in the middle of something; of a dead process, whether it was.
    fn is_inside(&self) -> bool {
        self.folders().iter().any(|folder| TRACES.iter().any(|trace| folder.join(trace).exists()))
    }

    async fn keep_killing(&self, until: Until, mut dice: StdRng) -> Killed {
        let (begun, mut killed) = (Instant::now(), Killed::default());
        let goes_on = |kills: usize| match until {
            Until::Kills(most) => kills < most,
            Until::Time(span) => begun.elapsed() < span,
        };
        while goes_on(killed.all) {
            tokio::time::sleep(Duration::from_millis(dice.random_range(200..1_500))).await;
            if dice.random_bool(0.8) {
                let waited = Instant::now();
                while !self.is_inside() && waited.elapsed() < PATIENCE {
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
                tokio::time::sleep(Duration::from_micros(dice.random_range(0..3_000))).await;
            }
            self.scene.gateway.kill();
            killed.all += 1;
            killed.inside += usize::from(self.is_inside());
            self.scene.gateway.restart(None).await;
            for client in &self.clients {
                let listed = Call::post("/wallet/listassets", client);
                let opened = self.scene.gateway.answer(&listed).await;
                assert!(opened.is_ok(), "after kill {}: {opened:?}\n{}", killed.all, self.scene.gateway.log());
            }
        }
        self.over.store(true, Ordering::SeqCst);
        killed
    }

    async fn keep_mining(&self) {
        while !self.over.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.scene.node.mine(1).await;
        }
    }

    async fn keep_busy(&self, number: usize, client: &Client, mut dice: StdRng) {
        let mut turn = 0;
        while !self.over.load(Ordering::SeqCst) {
            turn += 1;
            let key = format!("turn {turn}");
            let what = if turn == 1 { 0 } else { dice.random_range(0..10) };
            match what {
                0 => self.issue(client, &key, &mut dice).await,
                1 => self.invoice(client, "/wallet/blindreceive", &key).await.map(drop),
                _ => {
                    let payee = &self.clients[(number + dice.random_range(1..self.clients.len())) % self.clients.len()];
                    self.send(client, payee, &key, &mut dice).await
                }
            };
        }
    }

    /// Asks until there is an answer; nothing when it is a refusal, or everything is over.
    async fn ask(&self, call: &Call) -> Option<Value> {
        loop {
            match self.scene.gateway.call(call).await {
                Ok(answer) if answer.is_ok() => return Some(answer.body),
                Ok(answer) if answer.status < 500 => return refused(answer).await,
                _ if self.over.load(Ordering::SeqCst) => return None,
                _ => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    }

    async fn issue(&self, client: &Client, key: &str, dice: &mut StdRng) -> Option<()> {
        let body = json!({ "ticker": "GOLD", "name": "Gold", "amounts": [dice.random_range(100..1_000)] });
        self.ask(&Call::post("/wallet/issueassetnia", client).json(body).key(key)).await?;
        self.issued.fetch_add(1, Ordering::SeqCst);
        Some(())
    }

    async fn invoice(&self, client: &Client, path: &str, key: &str) -> Option<Value> {
        let made = self.ask(&Call::post(path, client).json(json!({})).key(format!("{path} {key}"))).await?;
        self.invoiced.fetch_add(1, Ordering::SeqCst);
        Some(made)
    }

    async fn send(&self, client: &Client, payee: &Client, key: &str, dice: &mut StdRng) -> Option<()> {
        let listed = self.ask(&Call::post("/wallet/listassets", client)).await?;
        let spendable = |asset: &Value| asset["balance"]["spendable"].as_u64().unwrap_or(0) > 0;
        let mine: Vec<&Value> = listed["nia"].as_array()?.iter().filter(|asset| spendable(asset)).collect();
        if mine.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return None;
        }
        let asset = mine[dice.random_range(0..mine.len())];
        let amount = dice.random_range(1..=asset["balance"]["spendable"].as_u64()?.min(50));
        let who = client.keys.id();
        let invoice = self.invoice(payee, "/wallet/witnessreceive", &format!("{who} {key}")).await?;
        let body = json!({
            "invoice": invoice["invoice"], "asset_id": asset["asset_id"], "amount": amount, "fee_rate": 2, "min_confirmations": 1,
        });
        let psbt = self.ask(&Call::post("/wallet/sendbegin", client).json(body).key(format!("send {key}"))).await?;
        let signed = json!({ "signed_psbt": client.sign(psbt.as_str()?) });
        self.ask(&Call::post("/wallet/sendend", client).json(signed)).await?;
        self.sent.fetch_add(1, Ordering::SeqCst);
        Some(())
    }

    async fn transfers(&self, client: &Client) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::<Value>::new(), String::new());
        loop {
            let path = format!("/lightning/listtransfers?limit=100{cursor}");
            let page = self.scene.ok(&Call::post(path, client)).await.as_array().expect("a list").clone();
            let Some(last) = page.last() else { return all };
            cursor = format!("&cursor={}", last["idx"]);
            all.extend(page);
        }
    }

    /// Mines until nothing is on its way any more.
    async fn come_to_rest(&self) {
        let deadline = Instant::now() + DEADLINE * 2;
        loop {
            self.scene.mine().await;
            let mut open = Vec::new();
            for client in &self.clients {
                self.scene.ok(&Call::post("/wallet/refresh", client)).await;
                let transfers = self.transfers(client).await;
                open.extend(transfers.into_iter().filter(|one| one["state"] == "waiting_confirmations"));
                let sends = self.scene.ok(&Call::get("/onchain-send?limit=100", client)).await;
                let waits =
                    |one: &&Value| ["waiting_ack", "broadcast", "seen"].contains(&one["state"].as_str().unwrap_or(""));
                open.extend(sends["sends"].as_array().expect("a list").iter().filter(waits).cloned());
            }
            if open.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "still on its way: {open:#?}\n{}", self.scene.gateway.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What was issued is all there is, each wallet has what its transfers say, and it can be sent to somebody who has an RGB wallet of
    /// his own.
    async fn account(&self, alice: &RgbWallet) {
        let (mut there, mut supplies) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
        for client in &self.clients {
            let mut said = BTreeMap::<String, i64>::new();
            for one in self.transfers(client).await.iter().filter(|one| one["state"] == "settled") {
                let asset = one["asset_id"].as_str().expect("an asset").to_owned();
                let amount = one["amount"].as_i64().expect("an amount");
                let sign = if one["kind"] == 3 { -1 } else { 1 };
                *said.entry(asset).or_default() += sign * amount;
            }
            let listed = self.scene.ok(&Call::post("/wallet/listassets", client)).await;
            for asset in listed["nia"].as_array().expect("a list") {
                let id = asset["asset_id"].as_str().expect("an id").to_owned();
                let settled = asset["balance"]["settled"].as_u64().expect("an amount");
                assert_eq!(
                    said.get(&id).copied().unwrap_or(0),
                    i64::try_from(settled).expect("a number"),
                    "{id} of {}",
                    client.keys.id()
                );
                supplies.insert(id.clone(), asset["issued_supply"].as_u64().expect("an amount"));
                *there.entry(id).or_default() += settled;
            }
        }
        assert_eq!(there, supplies, "what was issued is what there is");
        for client in &self.clients {
            self.pay(client, alice).await;
        }
    }

    /// One who knows nothing of the gateway's books takes what a wallet has.
    async fn pay(&self, client: &Client, alice: &RgbWallet) {
        let listed = self.scene.ok(&Call::post("/wallet/listassets", client)).await;
        let has_some = |asset: &&Value| asset["balance"]["spendable"].as_u64().unwrap_or(0) > 0;
        let Some(asset) = listed["nia"].as_array().expect("a list").iter().find(has_some) else { return };
        let (id, amount) =
            (asset["asset_id"].as_str().expect("an id"), asset["balance"]["spendable"].as_u64().expect("an amount"));
        let before =
            if alice.assets().await.iter().any(|known| known == id) { alice.balance(id).await.settled } else { 0 };
        let here = self.scene.gateway.proxy();
        let asked = Asked { amount: Some(amount), endpoints: &[&here], ..Asked::default() };
        let invoiced = alice.witness_receive(asked).await;
        let address = self.scene.ok(&Call::post("/wallet/address", client)).await;
        self.scene.node.pay(&parse_address(address.as_str().expect("an address")), Sat::literal(100_000)).await;
        self.scene.mine().await;
        self.scene.make_coins_for(client, json!({ "num": 2, "size": 5_000, "fee_rate": 2 })).await;
        let body = json!({
            "invoice": invoiced.invoice, "asset_id": id, "amount": amount, "fee_rate": 2, "min_confirmations": 1,
        });
        let psbt = self.scene.ok(&Call::post("/wallet/sendbegin", client).json(body)).await;
        let signed = json!({ "signed_psbt": client.sign(psbt.as_str().expect("a PSBT")) });
        let sent = self.scene.ok(&Call::post("/wallet/sendend", client).json(signed)).await;
        let send = Call::get(format!("/onchain-send/{}", sent["send_id"].as_str().expect("an id")), client);
        let deadline = Instant::now() + DEADLINE;
        loop {
            alice.refresh().await;
            self.scene.node.mine(1).await;
            let is_final = self.scene.ok(&send).await["status"] == "CONFIRMED";
            if is_final && alice.balance(id).await.settled == before + amount {
                return;
            }
            assert!(Instant::now() < deadline, "the independent wallet did not get {amount} of {id}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

/// What may happen to a wallet that is in a hurry.
async fn refused(answer: Answer) -> Option<Value> {
    let code = answer.body["error"].as_str().unwrap_or_default().to_owned();
    let known = [
        "colorable_utxos_needed",
        "coins_leased",
        "coins_unconfirmed",
        "insufficient_assets",
        "colored_btc_low",
        "not_issued",
        "payment_in_progress",
        "already_paid",
        "request_expired",
        "psbt_unknown",
    ];
    assert!(known.contains(&code.as_str()), "{answer:?}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    None
}
