//! What an honest wallet can still do when everybody else has done his worst.

use std::time::Instant;

use serde_json::{Value, json};
use sluice::money::Sat;

use super::acts::withdrawals::SETTLED as TENANT_SETTLES;
use super::{ACCOMPLICES_STAKE, PAYMENT_DEADLINE, POLL, PURSE, STAKE, World, offchain};
use crate::crash::pair::Side;
use crate::harness::process::{Answer, Call};
use crate::harness::rig::{Client, parse_address, stranger};

const RECEIVED: u64 = 1_000;
const PAID: u64 = 700;
const WITHDRAWN: u64 = 30_000;
const COIN: u64 = 100_000;
const SETTLED: u64 = 40_000;

impl World {
    /// The other gateway's wallet pays an invoice, as any client does.
    pub(super) async fn payer_pays(&mut self, invoice: &str) {
        let side = &self.pair.sides[1];
        let begin = beginning(&side.client, invoice);
        let end = ended(side, &side.client, &begin, "/lightning/pay-invoice-end").await;
        let read = reading(&side.client, &end);
        let deadline = Instant::now() + PAYMENT_DEADLINE;
        // The payee may die at any step of it.
        loop {
            let sent = self.pair.sides[1].gateway.answer(&read).await;
            if sent.body["status"] != "PENDING" {
                assert_eq!(sent.body["status"], "SUCCEEDED", "{sent:?}");
                return;
            }
            assert!(Instant::now() < deadline, "{sent:?}\n{}", self.pair.sides[0].gateway.log());
            self.revive().await;
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) async fn require_peace(&mut self) {
        self.slow.clear();
        let gateway = &self.pair.sides[0].gateway;
        gateway.kill();
        gateway.site.audit().await;
        gateway.free_roles().await;
        gateway.restart(None).await;
        gateway.wait_synced(&self.pair.node).await;
        self.require_no_halt().await;
        self.receive_and_pay().await;
        self.settle().await;
        self.withdraw().await;
        self.require_no_halt().await;
        self.compare().await;
    }

    /// What one wallet has brought about may have stopped that wallet, and nobody else.
    async fn require_no_halt(&self) {
        let honest = &self.pair.sides[0];
        let ask = self.operator(0, Call::get("/admin/halts", &honest.client));
        let halts = honest.gateway.until("the halts", &ask, Answer::is_ok).await;
        let all = halts.body["halts"].as_array().expect("halts");
        let own = honest.client.keys.id().to_string();
        let stops_it = |halt: &&Value| halt["wallet"].is_null() || halt["wallet"] == own.as_str();
        assert_eq!(all.iter().find(stops_it), None, "it is stopped");
    }

    /// The node has what the wallets own, and its channel what the books say, less what it gave away before its gateway came. An
    /// audit that sees that stops payouts, so this comes last.
    async fn require_cover(&self) {
        const CHANNELS: &str = "node_channels_are_what_the_node_says";
        let honest = &self.pair.sides[0];
        let ask = self.operator(0, Call::post("/admin/audit", &honest.client));
        let was_compared = |answer: &Answer| {
            let waits =
                answer.body["pending"].as_array().is_some_and(|all| all.iter().any(|one| one["rule"] == CHANNELS));
            answer.is_ok() && answer.body["solvency"].is_object() && !waits
        };
        let audit = honest.gateway.until("an audit beside the work", &ask, was_compared).await;
        let drifts = audit.body["drifts"].as_array().expect("drifts");
        assert!(drifts.iter().all(|drift| drift["rule"] == CHANNELS), "the audit found drift: {drifts:?}");
        let given: Vec<u64> =
            drifts.iter().map(|drift| less_at_the_node(drift["detail"].as_str().expect("a detail"))).collect();
        assert_eq!(given, [PURSE * 1_000], "the channel differs otherwise: {drifts:?}");
        let sum = |name: &str| audit.body["solvency"][name].as_u64().expect("a sum");
        assert!(sum("claims_msat") <= sum("backing_msat"), "not all is covered: {}", audit.body["solvency"]);
        let owned = self.owned(honest, &honest.client).await + self.owned(honest, &self.tenant).await;
        assert!(sum("claims_msat") >= owned, "the audit has left something out: {}", audit.body["solvency"]);
    }

    /// Millisatoshi off-chain.
    async fn owned(&self, side: &Side, wallet: &Client) -> u64 {
        let read = Call::get("/lightning/balance", wallet);
        offchain(&side.gateway.until("a balance", &read, Answer::is_ok).await)
    }

    async fn receive_and_pay(&self) {
        let [honest, other] = &self.pair.sides;
        let invoice = invoice(honest, RECEIVED).await;
        pay(other, &other.client, invoice.text("invoice")).await;
        let read = Call::get(format!("/lightning/receive-request/{}", invoice.text("id")), &honest.client);
        honest.gateway.until("it is paid", &read, |answer| answer.body["status"] == "SETTLED").await;
        let theirs = self::invoice(other, PAID).await;
        pay(honest, &honest.client, theirs.text("invoice")).await;
    }

    async fn settle(&mut self) {
        let honest = &self.pair.sides[0];
        let ask = Call::post("/lightning/onchain-receive", &honest.client);
        let address = honest.gateway.until("an address", &ask, Answer::is_ok).await;
        let balance = Call::post("/wallet/btcbalance", &honest.client);
        self.pair.node.pay(&parse_address(address.text("btc_address")), Sat::literal(COIN)).await;
        self.pair.node.mine(1).await;
        let has = |answer: &Answer| answer.body["vanilla"]["spendable"].as_u64() >= Some(COIN);
        honest.gateway.until("the coin is there", &balance, has).await;
        let begin = Call::post("/lightning/settle-begin", &honest.client)
            .json(json!({ "amount_sats": SETTLED, "fee_rate": 2 }));
        let end = ended(honest, &honest.client, &begin, "/lightning/settle-end").await;
        let read = Call::get(format!("/lightning/settle/{}", end["id"].as_str().expect("an id")), &honest.client);
        self.mined_until(&read, "CREDITED").await;
        self.settled += SETTLED * 1_000;
    }

    async fn withdraw(&self) {
        let honest = &self.pair.sides[0];
        let begin = Call::post("/lightning/onchain-send-begin", &honest.client).json(json!({
            "address_or_rgbinvoice": stranger().to_string(), "amount_sats": WITHDRAWN, "fee_rate": 2, "source": "offchain",
        }));
        let end = ended(honest, &honest.client, &begin, "/lightning/onchain-send-end").await;
        let read = Call::get(format!("/onchain-send/{}", end["send_id"].as_str().expect("an id")), &honest.client);
        self.mined_until(&read, "CONFIRMED").await;
    }

    async fn mined_until(&self, read: &Call, status: &str) {
        let blocks = async {
            loop {
                self.pair.node.mine(1).await;
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
        };
        let gateway = &self.pair.sides[0].gateway;
        tokio::select! {
            _answer = gateway.until(status, read, |answer| answer.body["status"] == status) => {}
            () = blocks => unreachable!("blocks come for ever"),
        }
    }

    /// Nobody has got more than was there, and both sides' books are right.
    async fn compare(&self) {
        let [honest, other] = &self.pair.sides;
        let tenant = self.owned(honest, &self.tenant).await;
        let accomplice = self.owned(honest, &self.accomplice).await;
        let wallets = self.owned(honest, &honest.client).await + self.owned(other, &other.client).await;
        let mut credited = 0;
        for id in &self.settles {
            let read = Call::get(format!("/lightning/settle/{id}"), &self.tenant);
            let settle = honest.gateway.until("how it stands", &read, Answer::is_ok).await;
            credited += if settle.body["status"] == "CREDITED" { TENANT_SETTLES * 1_000 } else { 0 };
        }
        let (all, brought) = (wallets + tenant + accomplice, 2 * PURSE * 1_000 + self.settled + credited);
        assert!(all <= brought, "the wallets have {all} msat, and {brought} were brought");
        // Neither receives from anybody: what they have beyond their stakes would be somebody else's.
        assert!(tenant <= STAKE * 1_000 + credited, "the tenant has {tenant} msat, with {credited} credited");
        assert!(accomplice <= ACCOMPLICES_STAKE * 1_000, "the accomplice has {accomplice} msat");
        self.require_cover().await;
        for side in &self.pair.sides {
            side.gateway.terminate().await;
            assert_eq!(side.gateway.site.audit().await, 0, "{}: the audit could not check everything", side.name);
        }
    }
}

/// How much the first sum of a difference is above the second.
fn less_at_the_node(detail: &str) -> u64 {
    let sums: Vec<u64> = detail.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [books, node] = sums[..] else { panic!("not two sums: {detail}") };
    books.checked_sub(node).unwrap_or_else(|| panic!("the node has more: {detail}"))
}

pub(super) async fn invoice(side: &Side, sats: u64) -> Answer {
    let order = Call::post("/lightning/create-invoice", &side.client).json(json!({ "amount_sats": sats }));
    side.gateway.until("an invoice", &order, Answer::is_ok).await
}

fn beginning(client: &Client, invoice: &str) -> Call {
    Call::post("/lightning/pay-invoice-begin", client).json(json!({ "invoice": invoice, "max_fee_sats": 10 }))
}

fn reading(client: &Client, end: &Value) -> Call {
    Call::get(format!("/lightning/send-request/{}", end["id"].as_str().expect("an id")), client)
}

/// Pays to the end, and takes no failure.
async fn pay(side: &Side, client: &Client, invoice: &str) {
    let begin = beginning(client, invoice);
    let end = ended(side, client, &begin, "/lightning/pay-invoice-end").await;
    let read = reading(client, &end);
    let sent = side.gateway.until("it ends", &read, |answer| answer.body["status"] != "PENDING").await;
    assert_eq!(sent.body["status"], "SUCCEEDED", "{sent:?}");
}

async fn ended(side: &Side, client: &Client, begin: &Call, end: &str) -> Value {
    let begun = side.gateway.until("it begins", begin, Answer::is_ok).await;
    let signed = client.sign(begun.body.as_str().expect("a PSBT"));
    let end = Call::post(end, client).json(json!({ "signed_psbt": signed }));
    side.gateway.until("it is consented to", &end, Answer::is_ok).await.body
}
