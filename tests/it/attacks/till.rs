//! A whole gateway with its built-in node, a wallet, and a peer that means it ill, with channels between them on a real chain.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice::app::{self, Running};
use sluice::config::Config;
use sluice::domain::Request;
use sluice::domain::pay::{Door, Pay};
use sluice::domain::receive::Receive;
use sluice::flows::alarms::{LOOKS, Watch};
use sluice::flows::invoice::{self, WantedInvoice};
use sluice::flows::values::Suspended;
use sluice::flows::{Flows, audit, balance, books, operator, pay_invoice, register};
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{Asked, LightningNode, NewChannel};
use sluice::secret::Secret;
use sluice::store::node_parts;
use tempfile::TempDir;

use crate::harness::bitcoind::Bitcoind;
use crate::harness::lightning::paying;
use crate::harness::peer::{LdkPeer, Ported, eventually, eventually_shown, mine_until_usable};
use crate::harness::ports::free_address;
use crate::harness::rig::{Client, stranger};

pub const CAPACITY: Sat = Sat::literal(1_000_000);
/// What the peer begins with in each channel.
pub const PUSHED: Sat = Sat::literal(700_000);
const COIN: Sat = Sat::literal(1_500_000);
const BURIED: u32 = 6;

pub struct Till {
    pub bitcoind: Bitcoind,
    pub hostile: LdkPeer,
    pub running: Running,
    pub node: Arc<dyn LightningNode>,
    pub client: Client,
    _folder: TempDir,
}

impl Till {
    /// With so many channels to the peer. `None` after a loud skip where something is missing.
    pub async fn open(channels: usize, set: impl FnOnce(&mut Config)) -> Option<Self> {
        let bitcoind = Bitcoind::start().await?;
        let hostile = LdkPeer::start_hostile(&bitcoind, &[]).await?;
        let folder = TempDir::with_prefix("sluice-till-").expect("a temporary folder");
        let mut config = config(&bitcoind, &folder);
        set(&mut config);
        let running = app::start(&config).await.expect("the gateway starts");
        let node = eventually("the node is there", async || running.flows.node().node().ok()).await;
        let client = Client::number(1);
        let till = Self { bitcoind, hostile, running, node, client, _folder: folder };
        register::register(till.flows(), &till.client.keys, None).await.expect("the wallet registers");
        for _ in 0..=channels {
            till.bitcoind.pay(&till.node.onchain_address().await.expect("an address"), COIN).await;
        }
        till.mine(1).await;
        let wanted = COIN.to_u64() * (u64::try_from(channels).expect("a few") + 1);
        eventually("the node has its coins", async || {
            let balance = till.node.balance().await.expect("an answer");
            (balance.onchain_confirmed.to_u64() == wanted).then_some(())
        })
        .await;
        for number in 1..=channels {
            till.open_channel(number).await;
        }
        Some(till)
    }

    pub fn flows(&self) -> &Flows {
        &self.running.flows
    }

    /// Mines, and both sides take it in.
    pub async fn mine(&self, blocks: u32) {
        self.bitcoind.mine_to(blocks, &stranger()).await;
        let height = self.bitcoind.tip().await.height;
        eventually("the peer sees the blocks", async || (self.hostile.height().await == height).then_some(())).await;
        eventually("the node sees the blocks", async || {
            (self.node.info().await.expect("an answer").height == height).then_some(())
        })
        .await;
    }

    async fn open_channel(&self, number: usize) {
        let peer = self.hostile.id();
        assert_eq!(self.node.connect(peer, self.hostile.listens()).await, Ok(Asked::Done(())));
        let new = NewChannel { peer, amount: CAPACITY, push: Amount::from_sat(PUSHED), announced: false };
        let opened = self.node.open_channel(&new).await.expect("an answer");
        assert!(matches!(opened, Asked::Done(_)), "{opened:?}");
        self.something_waits().await;
        self.mine(BURIED).await;
        eventually("both ends use the channels", async || {
            let ours = self.node.channels().await.expect("an answer");
            let theirs = self.theirs().await;
            let usable = |all: &[Value]| all.iter().filter(|channel| channel["usable"] == true).count();
            (ours.iter().filter(|one| one.usable).count() == number && usable(&theirs) == number).then_some(())
        })
        .await;
    }

    /// One with an honest peer, with little on its side; answers the channel's id.
    pub async fn open_channel_to(&self, other: &LdkPeer) -> String {
        assert_eq!(self.node.connect(other.id(), other.listens()).await, Ok(Asked::Done(())));
        let push = Amount::from_sat(Sat::literal(100_000));
        let new = NewChannel { peer: other.id(), amount: CAPACITY, push, announced: false };
        let Asked::Done(_) = self.node.open_channel(&new).await.expect("an answer") else { panic!("it is refused") };
        mine_until_usable(&self.bitcoind, &[other, &Ported(&*self.node)]).await;
        self.mine(1).await;
        let channels = self.node.channels().await.expect("a list");
        channels.into_iter().find(|channel| channel.peer == other.id()).expect("it is there").id
    }

    pub async fn something_waits(&self) {
        eventually("a transaction waits", async || {
            let waiting = self.bitcoind.rpc("getrawmempool", json!([])).await;
            waiting.as_array().is_some_and(|all| !all.is_empty()).then_some(())
        })
        .await;
    }

    /// The channels, as the peer sees them.
    pub async fn theirs(&self) -> Vec<Value> {
        self.hostile.call("channels", json!({})).await.as_array().expect("a list").clone()
    }

    pub async fn invoice(&self, amount: Amount) -> Request<Receive> {
        let wanted = WantedInvoice { amount: Some(amount), ..WantedInvoice::default() };
        let made = async || invoice::create(self.flows(), &self.client.keys, wanted.clone(), None).await.ok();
        eventually("an invoice is made", made).await.request
    }

    /// The peer sends a part of what is asked for.
    pub async fn part(&self, receive: &Request<Receive>, part: Amount, total: Amount) {
        let asked = json!({
            "invoice": receive.machine.invoice,
            "msat": part.base_units(),
            "total_msat": total.base_units(),
        });
        self.hostile.call("pay_part", asked).await;
    }

    /// The peer pays the wallet, and nothing of it is left in between.
    pub async fn is_paid(&self, amount: Amount) {
        let receive = self.invoice(amount).await;
        self.part(&receive, amount, amount).await;
        self.settled(&receive).await;
        eventually_shown("both ends are done with it", async || {
            let coming = self.node.balance().await.expect("an answer").coming;
            if coming.is_zero() { Ok(()) } else { Err(coming) }
        })
        .await;
    }

    pub async fn settled(&self, receive: &Request<Receive>) {
        eventually_shown("the invoice is settled", async || {
            let found = invoice::find(self.flows(), &self.client.keys.id(), receive.id).await.expect("an answer");
            let state = found.expect("it is known").machine.payment_state();
            if state == "settled" { Ok(()) } else { Err(state) }
        })
        .await;
    }

    /// The wallet pays, and is told at once that it is being done.
    pub async fn pays(&self, invoice: &str, ceiling: Amount) -> Request<Pay> {
        let wanted = paying(invoice, Some(ceiling));
        let begun = pay_invoice::begin(self.flows(), &self.client.keys, wanted, None).await.expect("it begins");
        let signed = self.client.sign(&begun.psbt);
        pay_invoice::end(self.flows(), &self.client.keys, Door::PayInvoice, &signed).await.expect("it ends")
    }

    pub async fn has_paid(&self, payment: &Request<Pay>) -> Pay {
        eventually_shown("the payment has succeeded", async || {
            let found = pay_invoice::find(self.flows(), &self.client.keys.id(), payment.id).await.expect("an answer");
            let machine = found.expect("it is known").machine;
            if machine.payment_state() == "succeeded" { Ok(machine) } else { Err(machine.payment_state()) }
        })
        .await
    }

    /// What the wallet has off-chain, in millisatoshi.
    pub async fn purse(&self) -> u64 {
        let has = balance::offchain(self.flows(), &self.client.keys.id()).await.expect("a balance");
        has.available.base_units()
    }

    /// What waits in suspense, but for the coins that the node began with.
    pub async fn suspended(&self) -> Vec<Suspended> {
        let mut all = books::suspended(self.flows(), None, 100).await.expect("a list");
        all.retain(|item| item.other != "node:onchain");
        all
    }

    /// No payment in parts is counted any more: LDK has forgotten it.
    pub async fn parts_are_over(&self) {
        eventually("no payment in parts is open", async || {
            let mut conn = self.flows().store().read().await.expect("a connection");
            node_parts::open(&mut conn).await.expect("an answer").is_empty().then_some(())
        })
        .await;
    }

    /// Mines until nothing of the node's money is on its way: then the books say of it what the node says.
    pub async fn until_over(&self, stride: u32) -> audit::Report {
        eventually_shown("nothing is under way", async || {
            self.mine(stride).await;
            let report = audit::audit(self.flows()).await.expect("the audit runs");
            let balance = self.node.balance().await.expect("an answer");
            let quiet = report.pending.is_empty() && report.skipped.is_empty() && report.surplus.is_empty();
            let is_over = quiet && !balance.is_moving && balance.closing == Sat::ZERO;
            if is_over && report.drifts.is_empty() { Ok(report) } else { Err((report, balance)) }
        })
        .await
    }

    /// The end of every story: the books are exact, and nobody is stopped, however often it is looked.
    pub async fn close(self) {
        let mut watch = Watch::default();
        for _ in 0..=LOOKS {
            let report = self.until_over(1).await;
            watch.react(self.flows(), &report).await.expect("the store is there");
        }
        let halts = operator::halts(self.flows()).await.expect("the store answers");
        assert!(halts.is_empty(), "{halts:?}");
        self.running.stop().await;
    }
}

fn config(bitcoind: &Bitcoind, folder: &TempDir) -> Config {
    let mut config = Config::default();
    config.store.url = Secret::new(format!("sqlite:{}", folder.path().join("sluice.db").display()));
    config.chain.bitcoind = bitcoind.config();
    config.chain.poll_ms = 50;
    config.ldk.enabled = true;
    config.ldk.listen = Some(free_address());
    config.ldk.seed_file = folder.path().join("node.seed");
    config.ldk.poll_ms = 100;
    config.http.listen = ([127, 0, 0, 1], 0).into();
    config.operator.listen = config.http.listen;
    config.proxy.data_dir = folder.path().join("consignments");
    config.admin.socket = Some(folder.path().join("sluice.sock"));
    config.policy.lookahead = 25;
    config
}
