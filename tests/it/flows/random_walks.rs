//! Whatever happens, in whatever order: the books balance, and they say what the chain says.

use bitcoin::{Address, ScriptBuf};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use sluice::chain::fake::Reorged;
use sluice::domain::onchain_send::State;
use sluice::domain::wallet::Account;
use sluice::flows::send::{BeginSend, Begun};
use sluice::flows::{Code, Error};
use sluice::ports::chain::ChainBackend;

use crate::harness::rig::{Client, Rig, amount, inputs_of, spend_elsewhere, stranger, unsigned, wanted};

const STEPS: u32 = 200;

struct Walk {
    rig: Rig,
    rng: StdRng,
    clients: Vec<Client>,
    /// What was begun, and whose it is.
    begun: Vec<(usize, Begun)>,
    bumped: Vec<(usize, Begun)>,
}

/// A refusal is an answer; an internal error is a fault.
fn expect_no_fault<T>(result: Result<T, Error>) -> Option<T> {
    if let Err(error) = &result {
        assert!(!matches!(error.code(), Code::Internal | Code::StoreUnavailable), "{error:?}");
    }
    result.ok()
}

impl Walk {
    async fn new(seed: u64) -> Self {
        let rig = Rig::sqlite().await;
        let clients = vec![Client::number(1), Client::number(2)];
        for client in &clients {
            rig.funded_with(client, &[40_000, 30_000]).await;
        }
        Self { rig, rng: StdRng::seed_from_u64(seed), clients, begun: Vec::new(), bumped: Vec::new() }
    }

    fn someone(&mut self) -> usize {
        self.rng.random_range(0..self.clients.len())
    }

    async fn step(&mut self) -> String {
        let who = self.someone();
        match self.rng.random_range(0..20) {
            0 | 1 => self.fund(who).await,
            2..=5 => self.begin(who).await,
            6..=8 => self.end().await,
            9 | 10 => self.bump().await,
            11..=13 => self.mine().await,
            14 => self.reorg(),
            15 => self.evict(),
            16 => self.steal(who).await,
            17 => self.broadcast_alone().await,
            18 => {
                let seconds = if self.rng.random_bool(0.5) { 31 } else { 601 };
                self.rig.wait(seconds).await;
                format!("wait {seconds}")
            }
            _ => self.disturb(),
        }
    }

    async fn fund(&mut self, who: usize) -> String {
        let to = self.rig.current_address(&self.clients[who]).await;
        let sat = self.rng.random_range(1_000..50_000);
        self.rig.chain.pay(&to.script_pubkey(), amount(sat)).expect("the fake pays");
        format!("fund {who} with {sat}")
    }

    async fn begin(&mut self, who: usize) -> String {
        let other = self.someone();
        let to: Address =
            if self.rng.random_bool(0.3) { self.rig.current_address(&self.clients[other]).await } else { stranger() };
        let sat = self.rng.random_range(1_000..40_000);
        let deduct_fee = self.rng.random_bool(0.2);
        let asked = BeginSend { deduct_fee, ..wanted(&to, sat) };
        if let Some(begun) = expect_no_fault(self.rig.begin_with(&self.clients[who], asked).await) {
            self.begun.push((who, begun));
        }
        format!("begin {who} {sat}")
    }

    async fn end(&mut self) -> String {
        let Some((who, begun)) = self.begun.iter().choose(&mut self.rng) else { return "nothing to end".to_owned() };
        let ended = expect_no_fault(self.rig.end(&self.clients[*who], &begun.psbt).await).is_some();
        format!("end {} {ended}", begun.request)
    }

    async fn bump(&mut self) -> String {
        if self.rng.random_bool(0.4)
            && let Some((who, bump)) = self.bumped.iter().choose(&mut self.rng)
        {
            let ended = expect_no_fault(self.rig.end_bump(&self.clients[*who], bump).await).is_some();
            return format!("end bump of {} {ended}", bump.request);
        }
        let Some((who, begun)) = self.begun.iter().choose(&mut self.rng) else { return "nothing to bump".to_owned() };
        let (who, request) = (*who, begun.request);
        let (rate, cancel) = (self.rng.random_range(3..20), self.rng.random_bool(0.3));
        if let Some(bump) = expect_no_fault(self.rig.bump(&self.clients[who], request, rate, cancel).await) {
            if self.rng.random_bool(0.6) {
                expect_no_fault(self.rig.end_bump(&self.clients[who], &bump).await);
            }
            self.bumped.push((who, bump));
        }
        format!("bump {request} {rate} {cancel}")
    }

    async fn mine(&mut self) -> String {
        if self.rng.random_bool(0.2) {
            self.rig.chain.mine_empty(1);
            return "mine an empty block".to_owned();
        }
        self.rig.chain.mine(1);
        "mine".to_owned()
    }

    fn reorg(&mut self) -> String {
        let depth = self.rng.random_range(1..5);
        let fate = [Reorged::MinedAgain, Reorged::BackInMempool, Reorged::Gone][self.rng.random_range(0..3)];
        if self.rig.chain.reorg(depth, depth + 1, fate).is_err() {
            // What was lost built on a reward that is lost too.
            self.rig.chain.mine_empty(depth + 1);
        }
        format!("reorg {depth} {fate:?}")
    }

    fn evict(&mut self) -> String {
        let mut waiting: Vec<_> = self.rig.chain.mempool_ids().into_iter().collect();
        waiting.sort();
        if let Some(txid) = waiting.into_iter().choose(&mut self.rng) {
            self.rig.chain.evict(txid);
        }
        "evict".to_owned()
    }

    /// Somebody with the same keys spends a coin elsewhere, waiting or in a block.
    async fn steal(&mut self, who: usize) -> String {
        let coins = self.rig.coins(&self.clients[who]).await;
        let Some(coin) = coins.iter().filter(|coin| coin.amount.to_u64() > 5_000).choose(&mut self.rng) else {
            return "nothing to steal".to_owned();
        };
        let theft = spend_elsewhere(&[coin.outpoint], &stranger(), coin.amount.to_u64() - 4_000);
        if self.rng.random_bool(0.5) && self.rig.chain.mine_with(vec![theft.clone()]).is_ok() {
            return format!("steal {} in a block", coin.outpoint);
        }
        let said = self.rig.chain.broadcast(&theft).await.expect("the fake answers");
        format!("steal {}: {said:?}", coin.outpoint)
    }

    /// A client broadcasts what he signed, without a word.
    async fn broadcast_alone(&mut self) -> String {
        let all = self.begun.iter().chain(&self.bumped);
        let Some((who, begun)) = all.choose(&mut self.rng) else { return "nothing to broadcast".to_owned() };
        let signed = self.clients[*who].signed_tx(&begun.psbt);
        let said = self.rig.chain.broadcast(&signed).await.expect("the fake answers");
        format!("broadcast {} alone: {said:?}", begun.request)
    }

    fn disturb(&mut self) -> String {
        match self.rng.random_range(0..4) {
            0 => self.rig.restart(),
            1 => self.rig.chain.wipe_mempool(),
            2 => self.rig.chain.refuse_broadcast(Some("not now")),
            _ => self.rig.chain.refuse_broadcast(None),
        }
        "disturb".to_owned()
    }

    /// Every coin that the chain has for a wallet is in its books, and no other.
    async fn compare_with_chain(&self) {
        for client in &self.clients {
            let scripts: Vec<ScriptBuf> =
                client.keys.scripts(Account::Vanilla, 0..400).into_iter().map(|derived| derived.script).collect();
            let found = self.rig.chain.scan(&scripts).await.expect("the fake answers").coins;
            let there: u64 = found.iter().map(|coin| coin.amount.to_u64()).sum();
            assert_eq!(self.rig.balance(client).await.settled.to_u64(), there);
        }
    }

    async fn run(mut self) {
        let mut story = Vec::new();
        for number in 0..STEPS {
            story.push(self.step().await);
            // Sometimes several things happen before anybody looks.
            if self.rng.random_bool(0.8) {
                self.rig.settle().await;
            }
            if number % 5 == 4 {
                println!("{}", story.join("\n"));
                story.clear();
                self.rig.audit().await;
                self.compare_with_chain().await;
            }
        }
        self.rig.chain.refuse_broadcast(None);
        for _ in 0..8 {
            self.rig.wait(601).await;
            self.rig.mine(1).await;
        }
        self.rig.audit().await;
        self.compare_with_chain().await;
        for (who, begun) in &self.begun {
            let state = self.rig.state(&self.clients[*who], begun.request).await;
            let is_over = match state {
                State::AwaitingSignature | State::WaitingAck { .. } | State::Seen { .. } => false,
                State::Broadcast { .. } => self.lacks_a_coin(&begun.psbt).await,
                State::Confirmed { .. }
                | State::Cancelled { .. }
                | State::Conflicted { .. }
                | State::Expired
                | State::Failed { .. } => true,
            };
            assert!(is_over, "{} is {state:?} after eight quiet blocks", begun.request);
        }
    }

    /// What spends a coin that a reorganisation has taken away waits for as long as it may come back.
    async fn lacks_a_coin(&self, psbt: &str) -> bool {
        let mut conn = self.rig.flows.store().read().await.expect("the store answers");
        let coins = sluice::store::chain::coins_among(&mut conn, &inputs_of(&unsigned(psbt))).await;
        coins.expect("the store answers").iter().any(|coin| coin.height.is_none())
    }
}

macro_rules! walks {
    ($($name:ident: $seed:expr),*) => {
        $(#[tokio::test]
        async fn $name() {
            println!("seed {}", $seed);
            Walk::new($seed).await.run().await;
        })*
    };
}

walks!(first: 1, second: 2, third: 3, fourth: 4, fifth: 5, sixth: 6);
