//! kill -9 at random moments, while several wallets are busy and the chain changes its mind.
//!
//! `SLUICE_KILL_SECONDS` says for how long (180 in CI, 30 elsewhere), `SLUICE_SEED` names the sequence of what is done.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash;
use bitcoin::{Address, ScriptBuf};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::{balance, end, say};
use crate::harness::bitcoind::{self, Bitcoind};
use crate::harness::process::{Answer, Call, DEADLINE, Gateway, POLL, Site};
use crate::harness::rig::{Client, Database, parse_address, stranger};

const WALLETS: u32 = 4;
const USUAL_SECONDS: u64 = 30;
const CI_SECONDS: u64 = 180;
/// What three minutes have to bring.
const KILLS_IN_CI: usize = 40;
/// A call that a client gives up after losing it.
const GIVES_UP: f64 = 0.1;
const MINUTE: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_gateway_is_killed_at_random() {
    let usual = if std::env::var("CI").as_deref() == Ok("true") { CI_SECONDS } else { USUAL_SECONDS };
    let seconds = number_from("SLUICE_KILL_SECONDS").unwrap_or(usual);
    let kills = on_both(seconds).await;
    if let Some(kills) = kills.filter(|_| seconds >= CI_SECONDS) {
        assert!(kills >= KILLS_IN_CI, "{kills} kills are too few to prove anything");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_random_kills() {
    match number_from("SLUICE_SOAK_SECONDS") {
        Some(seconds) => drop(on_both(seconds).await),
        None => say("soak_random_kills: SLUICE_SOAK_SECONDS is not set (see `make soak`)"),
    }
}

pub fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Half of the time on each database; answers the number of kills, `None` where something is missing.
async fn on_both(seconds: u64) -> Option<usize> {
    let seed = number_from("SLUICE_SEED").unwrap_or(1);
    let half = Duration::from_secs(seconds) / 2;
    let sqlite = Field::run(Database::Sqlite, half, seed).await?;
    let postgres = Field::run(Database::Postgres, half, seed).await?;
    say(&format!("random kills: {} in {seconds} s (seed {seed})", sqlite + postgres));
    Some(sqlite + postgres)
}

/// Everything that goes on at the same time.
struct Field {
    database: Database,
    node: Bitcoind,
    gateway: Gateway,
    over: AtomicBool,
    /// What the node's own wallet has paid, in order.
    paid: Mutex<Vec<String>>,
    begins: AtomicU32,
    ends: AtomicU32,
    bumps: AtomicU32,
    retries: AtomicU32,
    reorgs: AtomicU32,
}

impl Field {
    async fn run(database: Database, span: Duration, seed: u64) -> Option<usize> {
        let node = Bitcoind::start().await?;
        // What is mined from here on pays nobody here, so that no deposit is paid from a coin that a reorganisation makes immature.
        node.mine_to(101, &stranger()).await;
        let site = Site::new(database, &node).await?.with("policy.max_waiting_sends", "1000");
        let gateway = Gateway::start(&site).await;
        let count = || AtomicU32::new(0);
        let field = Self {
            database,
            node,
            gateway,
            over: AtomicBool::new(false),
            paid: Mutex::default(),
            begins: count(),
            ends: count(),
            bumps: count(),
            retries: count(),
            reorgs: count(),
        };
        let people: Vec<Mutex<Person>> = (0..WALLETS).map(|number| Mutex::new(Person::new(number, seed))).collect();
        let (kills, ..) = tokio::join!(
            field.keep_killing(span, StdRng::seed_from_u64(seed)),
            field.keep_mining(StdRng::seed_from_u64(seed + 1)),
            futures::future::join_all(people.iter().map(|person| field.keep_busy(person))),
        );
        let people: Vec<Person> =
            people.into_iter().map(|person| person.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        field.settle(&people).await;
        for person in &people {
            field.account_for(person).await;
        }
        field.gateway.kill();
        assert_eq!(field.gateway.site.audit().await, 0, "the last audit could not check everything");
        field.report(&kills, span);
        Some(kills.len())
    }

    fn report(&self, kills: &[Duration], span: Duration) {
        let mut sorted = kills.to_vec();
        sorted.sort();
        let middle = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        let longest = sorted.last().copied().unwrap_or_default();
        let read = |counter: &AtomicU32| counter.load(Ordering::SeqCst);
        say(&format!(
            "random kills on {:?}: {} in {span:.0?}, an audit after each; reads serve again after {middle:.0?}, at most \
             {longest:.0?}; {} begins, {} ends, {} bumps, {} calls made again, {} reorganisations",
            self.database,
            kills.len(),
            read(&self.begins),
            read(&self.ends),
            read(&self.bumps),
            read(&self.retries),
            read(&self.reorgs),
        ));
    }

    /// Kills, audits, starts again; answers how long each took to serve reads again.
    async fn keep_killing(&self, span: Duration, mut dice: StdRng) -> Vec<Duration> {
        let begun = Instant::now();
        let reader = Client::number(0);
        self.gateway.until("it registers", &Call::post("/wallet/register", &reader), Answer::is_ok).await;
        let mut times = Vec::new();
        while begun.elapsed() < span {
            tokio::time::sleep(self.life(&mut dice)).await;
            self.gateway.kill();
            self.gateway.site.audit().await;
            let killed = Instant::now();
            self.gateway.restart(None).await;
            self.gateway.until("it reads", &balance(&reader), Answer::is_ok).await;
            times.push(killed.elapsed());
        }
        self.over.store(true, Ordering::SeqCst);
        times
    }

    /// How long the next process lives. On PostgreSQL a role of a killed one is free after its lease: some lives are longer.
    fn life(&self, dice: &mut StdRng) -> Duration {
        let millis = match self.database {
            Database::Postgres if dice.random_bool(0.2) => dice.random_range(11_000..14_000),
            Database::Sqlite | Database::Postgres => dice.random_range(50..2_000),
        };
        Duration::from_millis(millis)
    }

    async fn keep_mining(&self, mut dice: StdRng) {
        while !self.over.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(dice.random_range(300..1_500))).await;
            if dice.random_bool(0.15) {
                let depth = dice.random_range(1..=3);
                let first_lost = self.node.tip().await.height + 1 - depth;
                self.node.invalidate_block(self.node.block_hash(first_lost).await).await;
                // To somebody else than before: the same block again would be the one that was just refused.
                self.node.mine_to(depth + 1, &nobody(self.reorgs.load(Ordering::SeqCst))).await;
                self.reorgs.fetch_add(1, Ordering::SeqCst);
                self.pay_again().await;
            } else {
                self.node.mine_to(1, &stranger()).await;
            }
        }
    }

    /// A node that takes blocks back drops long chains of transactions. Those that pay deposits are the test's own, not the gateway's.
    async fn pay_again(&self) {
        let all = self.paid.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for txid in &all[all.len().saturating_sub(200)..] {
            let known = self.node.rpc("gettransaction", json!([txid])).await;
            if known["confirmations"] == 0 {
                // Refused when it is in the mempool already.
                let _ = self.node.try_rpc("sendrawtransaction", json!([known["hex"]])).await;
            }
        }
    }

    async fn keep_busy(&self, person: &Mutex<Person>) {
        // Nobody else has this person as long as this runs; the lock is only how to hand it over.
        let mut taken = std::mem::replace(
            &mut *person.lock().unwrap_or_else(PoisonError::into_inner),
            Person::new(u32::MAX / 2, 0),
        );
        let register = Call::post("/wallet/register", &taken.client);
        self.gateway.until("it registers", &register, Answer::is_ok).await;
        taken.receive(self).await;
        while !self.over.load(Ordering::SeqCst) {
            match taken.dice.random_range(0..10) {
                0..=2 => taken.receive(self).await,
                3..=6 => taken.send(self).await,
                7 => taken.bump(self).await,
                8 => taken.ask_again(self).await,
                _ => drop(self.gateway.call(&balance(&taken.client)).await),
            }
        }
        *person.lock().unwrap_or_else(PoisonError::into_inner) = taken;
    }

    /// Mines until nothing waits for a block any more.
    async fn settle(&self, people: &[Person]) {
        let deadline = Instant::now() + DEADLINE * 2;
        loop {
            self.pay_again().await;
            self.node.mine_to(1, &stranger()).await;
            self.gateway.wait_synced(&self.node).await;
            let mut waiting = Vec::new();
            for person in people {
                for send in self.all(&person.client, "/onchain-send", "sends").await {
                    let state = send["state"].as_str().unwrap_or_default();
                    if ["broadcast", "seen"].contains(&state) {
                        waiting.push(send);
                    }
                }
            }
            if waiting.is_empty() && self.node.rpc("getrawmempool", json!([])).await == json!([]) {
                return;
            }
            if Instant::now() > deadline {
                let why = self.why_stuck(&waiting, people).await;
                panic!("{} sends do not end, because {why}\n{}", waiting.len(), self.gateway.log());
            }
        }
    }

    /// Which coins of the first one are not there, and what the node and the gateway know of their transactions.
    async fn why_stuck(&self, waiting: &[Value], people: &[Person]) -> String {
        let Some(stuck) = waiting.first() else { return "the mempool is not empty".to_owned() };
        let begun = people.iter().flat_map(|person| person.begun.iter().map(move |(_, psbt)| (person, psbt)));
        let mut why = format!("{stuck}");
        for (person, psbt) in begun {
            let psbt: bitcoin::Psbt = psbt.as_str().and_then(|psbt| psbt.parse().ok()).expect("a PSBT");
            if psbt.unsigned_tx.compute_txid().to_string() != stuck["txid"] {
                continue;
            }
            let sends = self.all(&person.client, "/onchain-send", "sends").await;
            for input in &psbt.unsigned_tx.input {
                let (txid, vout) = (input.previous_output.txid.to_string(), input.previous_output.vout);
                let out = self.node.rpc("gettxout", json!([txid, vout])).await;
                let known =
                    self.node.try_rpc("gettransaction", json!([txid])).await.map(|tx| tx["confirmations"].clone());
                let made_by = sends.iter().find(|send| send["versions"].to_string().contains(&txid));
                why +=
                    &format!("\ninput {txid}:{vout}: unspent {out}, paid by the node {known:?}, made by {made_by:?}");
            }
        }
        why
    }

    /// Every page of a list.
    async fn all(&self, client: &Client, path: &str, field: &str) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.gateway.answer(&Call::get(format!("{path}?limit=100{cursor}"), client)).await.ok();
            all.extend(page[field].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// What a wallet has in the chain is what it was paid, less what it paid; and every promise was kept.
    async fn account_for(&self, person: &Person) {
        let who = format!("wallet {} on {:?}", person.number, self.database);
        let deposits = self.all(&person.client, "/deposits", "deposits").await;
        let mut credited: Vec<(String, u64)> = deposits
            .iter()
            .map(|deposit| {
                assert_eq!(deposit["state"], "confirmed", "{who}: {deposit}");
                (text(&deposit["txid"]), deposit["amount_sats"].as_u64().expect("an amount"))
            })
            .collect();
        let mut funded = person.funded.clone();
        credited.sort();
        funded.sort();
        assert_eq!(credited, funded, "{who}: deposits are not what was paid");
        let (mut paid, mut fees) = (0, 0);
        let mut confirmed = BTreeSet::new();
        for send in self.all(&person.client, "/onchain-send", "sends").await {
            match send["state"].as_str().expect("a state") {
                "confirmed" => {
                    confirmed.insert(text(&send["send_id"]));
                    paid += send["amount_sats_sent"].as_u64().expect("an amount");
                    fees += send["fee_sats"].as_u64().expect("a fee");
                }
                "awaiting_signature" | "expired" => {}
                other => panic!("{who}: a send is {other}: {send}"),
            }
        }
        for accepted in &person.accepted {
            assert!(confirmed.contains(accepted), "{who}: the send {accepted} was accepted and is not confirmed");
        }
        assert_eq!(
            self.in_chain(&[format!("addr({})", person.to)]).await,
            paid,
            "{who}: recipients got something else"
        );
        let own = format!("tr({}/0/*)", person.client.signer.wallet_xpubs().xpub_van);
        let there = self.in_chain(&[own]).await;
        let got: u64 = funded.iter().map(|(_, sats)| sats).sum();
        assert_eq!(there, got - paid - fees, "{who}: funded {got}, paid {paid}, fees {fees}");
        let balance = self.gateway.answer(&balance(&person.client)).await.ok();
        assert_eq!(balance["vanilla"]["settled"], there, "{who}: {balance}");
    }

    /// What the node's own set of coins holds for these descriptors.
    async fn in_chain(&self, descriptors: &[String]) -> u64 {
        let wanted: Vec<Value> = descriptors
            .iter()
            .map(|text| if text.contains('*') { json!({ "desc": text, "range": 5_000 }) } else { json!(text) })
            .collect();
        let found = self.node.rpc("scantxoutset", json!(["start", wanted])).await;
        let bitcoin = found["total_amount"].as_f64().expect("an amount");
        bitcoin::Amount::from_btc(bitcoin).expect("an amount").to_sat()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

/// The address of somebody whom no wallet knows.
fn nobody(number: u32) -> Address {
    let mut hash = [0x51; 20];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    bitcoind::address(&ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array(hash)))
}

/// A wallet and what its owner remembers.
struct Person {
    number: u32,
    client: Client,
    /// Where this wallet pays to, and no other.
    to: Address,
    dice: StdRng,
    calls: u32,
    funded: Vec<(String, u64)>,
    addresses: BTreeSet<String>,
    /// Begins by what was asked, and what was answered.
    begun: Vec<(Call, Value)>,
    /// Sends whose end was answered with success.
    accepted: BTreeSet<String>,
}

impl Person {
    fn new(number: u32, seed: u64) -> Self {
        Self {
            number,
            client: Client::number(number.saturating_add(1)),
            to: nobody(u32::MAX - number),
            dice: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(u64::from(number))),
            calls: 0,
            funded: Vec::new(),
            addresses: BTreeSet::new(),
            begun: Vec::new(),
            accepted: BTreeSet::new(),
        }
    }

    fn key(&mut self) -> String {
        self.calls += 1;
        format!("call-{}", self.calls)
    }

    /// Calls until there is an answer; `None` when this client does not come back after losing one.
    async fn persist(&mut self, field: &Field, call: &Call) -> Option<Answer> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let last = match field.gateway.call(call).await {
                Ok(answer) if answer.status < 500 => return Some(answer),
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{answer:?}\n{}", field.gateway.log());
                    format!("{answer:?}")
                }
                Err(error) => error,
            };
            if self.dice.random_bool(GIVES_UP) {
                return None;
            }
            field.retries.fetch_add(1, Ordering::SeqCst);
            assert!(Instant::now() < deadline, "no answer to {call:?}: {last}\n{}", field.gateway.log());
            tokio::time::sleep(POLL * 5).await;
        }
    }

    async fn receive(&mut self, field: &Field) {
        let call = Call::post("/lightning/onchain-receive", &self.client).key(self.key());
        let Some(answer) = self.persist(field, &call).await else { return };
        let address = answer.text("btc_address").to_owned();
        assert!(self.addresses.insert(address.clone()), "{address} was handed out twice");
        assert_eq!(parse_address(&address).to_string(), address);
        let sats = self.dice.random_range(50_000..400_000u64);
        let bitcoin = bitcoin::Amount::from_sat(sats).to_string_in(bitcoin::Denomination::Bitcoin);
        // The node's own wallet runs out of coins that it may spend, until the next block.
        if let Ok(txid) = field.node.try_rpc("sendtoaddress", json!([address, bitcoin])).await {
            self.funded.push((text(&txid), sats));
            field.paid.lock().unwrap_or_else(PoisonError::into_inner).push(text(&txid));
        }
    }

    async fn send(&mut self, field: &Field) {
        let sats = self.dice.random_range(10_000..60_000u64);
        let body = json!({ "address_or_rgbinvoice": self.to.to_string(), "amount_sats": sats,
            "fee_rate": self.dice.random_range(2..5), "expires_in_seconds": MINUTE });
        let call = Call::post("/lightning/onchain-send-begin", &self.client).key(self.key()).json(body);
        let Some(answer) = self.persist(field, &call).await else { return };
        if !answer.is_ok() {
            let why = answer.text("error");
            assert!(["coins_leased", "coins_unconfirmed", "insufficient_funds"].contains(&why), "{answer:?}");
            return;
        }
        field.begins.fetch_add(1, Ordering::SeqCst);
        self.begun.push((call, answer.body.clone()));
        if self.dice.random_bool(0.15) {
            return;
        }
        let psbt = text(&answer.body);
        let Some(ended) = self.persist(field, &end(&self.client, &psbt)).await else { return };
        if ended.status == 409 {
            assert_eq!(ended.text("error"), "request_expired", "{ended:?}");
            return;
        }
        assert!(ended.is_ok(), "{ended:?}");
        field.ends.fetch_add(1, Ordering::SeqCst);
        self.accepted.insert(ended.text("send_id").to_owned());
    }

    /// Raises the fee of some send that was accepted.
    async fn bump(&mut self, field: &Field) {
        let place = self.dice.random_range(0..self.accepted.len().max(1));
        let Some(id) = self.accepted.iter().rev().nth(place).cloned() else { return };
        let rate = self.dice.random_range(8..30);
        let path = format!("/onchain-send/{id}/bump-begin");
        let call = Call::post(path, &self.client).key(self.key()).json(json!({ "fee_rate": rate }));
        let Some(begun) = self.persist(field, &call).await else { return };
        if !begun.is_ok() {
            assert!([400, 409].contains(&begun.status), "{begun:?}");
            return;
        }
        let signed = self.client.sign(&text(&begun.body));
        let call = Call::post(format!("/onchain-send/{id}/bump-end"), &self.client);
        let Some(ended) = self.persist(field, &call.json(json!({ "signed_psbt": signed }))).await else { return };
        assert!([200, 409].contains(&ended.status), "{ended:?}");
        field.bumps.fetch_add(1, Ordering::SeqCst);
    }

    /// The same begin again is answered with the same PSBT, or with that it is too late.
    async fn ask_again(&mut self, field: &Field) {
        let place = self.dice.random_range(0..self.begun.len().max(1));
        let Some((call, psbt)) = self.begun.get(place).cloned() else { return };
        let Some(again) = self.persist(field, &call).await else { return };
        if again.status == 409 {
            assert_eq!(again.text("error"), "request_expired");
        } else {
            assert_eq!(again.ok(), psbt, "begin answers otherwise now");
        }
    }
}
