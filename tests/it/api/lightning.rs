//! Lightning over HTTP: a whole gateway whose workers follow a node in memory, and a shop with a node of its own.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice::chain::fake::FakeChain;
use sluice::domain::lightning::PayFailure;
use sluice::money::Amount;

use super::{fields, funded_on_fake};
use crate::harness::client::{Answer, Call, Caller};
use crate::harness::gateway::Gateway;
use crate::harness::lightning::{Lightning, msat, sat};
use crate::harness::rig::{Database, stranger};

const BEGIN: &str = "/lightning/pay-invoice-begin";
const END: &str = "/lightning/pay-invoice-end";

struct Market {
    gateway: Gateway,
    chain: Arc<FakeChain>,
    lightning: Lightning,
}

/// Tells a story on both databases, and looks at the books afterwards.
macro_rules! stories {
    ($($story:ident),+ $(,)?) => {$(
        mod $story {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::tell(crate::harness::rig::Database::Sqlite, super::$story).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::tell(crate::harness::rig::Database::Postgres, super::$story).await;
            }
        }
    )+};
}

stories!(
    an_invoice_is_paid_from_outside,
    an_invoice_is_paid_to_the_outside,
    what_fails_says_why_and_gives_everything_back,
    a_neighbour_is_paid_in_the_books,
    a_race_to_end_pays_once,
    payments_are_listed_page_by_page,
    one_text_with_two_ways_takes_the_one_that_is_there,
    money_crosses_between_the_rails,
    what_crosses_is_checked_field_by_field,
);

async fn tell(database: Database, story: impl AsyncFnOnce(&Market)) {
    let Some((gateway, chain, lightning)) = Gateway::start_lightning(database, &[]).await else { return };
    let market = Market { gateway, chain, lightning };
    story(&market).await;
    market.gateway.stop().await;
}

impl Market {
    async fn shop_pays(&self, made: &Value, amount: Amount) {
        let hash = text(made, "payment_hash").parse().expect("a hash");
        self.lightning.shop_pays(&text(made, "invoice"), hash, amount).await;
    }

    /// A wallet with so much off-chain.
    async fn funded(&self, wallet: u32, sats: u64) -> Caller {
        let owner = self.gateway.registered(wallet).await;
        let made = owner.post("/lightning/create-invoice", json!({ "amount_sats": sats })).await.ok();
        self.shop_pays(&made, sat(sats)).await;
        settled(&owner, &made).await;
        owner
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

async fn settled(owner: &Caller, made: &Value) -> Value {
    let path = format!("/lightning/receive-request/{}", text(made, "id"));
    owner.until(&path, |invoice| invoice["status"] == "SETTLED").await
}

async fn offchain(owner: &Caller) -> Value {
    owner.get("/lightning/balance").await.ok()["balance"]["offchain_balance"].clone()
}

async fn available(owner: &Caller) -> u64 {
    offchain(owner).await["available_msat"].as_u64().expect("an amount")
}

fn signed(owner: &Caller, begun: &Value) -> Value {
    json!({ "signed_psbt": owner.sign(begun) })
}

async fn begin(owner: &Caller, invoice: &str) -> Answer {
    owner.post(BEGIN, json!({ "invoice": invoice, "max_fee_sats": 100 })).await
}

async fn an_invoice_is_paid_from_outside(market: &Market) {
    let owner = market.gateway.registered(1).await;
    let wanted = json!({ "amount_sats": 5_000, "description": "order 7", "reference": "r7" });
    let made = owner.post("/lightning/create-invoice", wanted).await.ok();
    assert_eq!(
        fields(&made),
        [
            "amount_msat",
            "amount_sats",
            "asset",
            "created_at",
            "description",
            "expires_at",
            "id",
            "invoice",
            "payment_hash",
            "payment_type",
            "received_msat",
            "reference",
            "settled_by",
            "state",
            "status",
            "updated_at",
            "warning",
        ]
    );
    assert_eq!((&made["status"], &made["warning"], &made["asset"]), (&json!("OPEN"), &Value::Null, &Value::Null));
    market.shop_pays(&made, msat(5_000_700)).await;
    let done = settled(&owner, &made).await;
    assert_eq!((&done["amount_sats"], &done["received_msat"]), (&json!(5_000), &json!(5_000_700)));
    let balance = offchain(&owner).await;
    assert_eq!(
        balance,
        json!({ "total": 5_000, "details": [], "total_msat": 5_000_700, "held_msat": 0, "debt_msat": 0, "available_msat": 5_000_700 })
    );
    let request = owner.get(format!("/requests/{}", text(&made, "id"))).await.ok();
    let kinds: Vec<&Value> = request["timeline"].as_array().expect("a timeline").iter().map(|e| &e["kind"]).collect();
    assert_eq!(kinds, ["lightning_receive.opened", "lightning_receive.claiming", "lightning_receive.settled"]);
    market.shop_pays(&made, sat(5_000)).await;
    assert_eq!(offchain(&owner).await, balance, "a second payment for it goes back");
    let large = owner.post("/lightning/create-invoice", json!({ "amount_sats": 90_000_000 })).await.ok();
    assert_eq!(large["warning"], "inbound_liquidity_low");
}

async fn an_invoice_is_paid_to_the_outside(market: &Market) {
    let owner = market.funded(1, 50_000).await;
    market.lightning.node.set_fees(msat(1_200), 0);
    let (invoice, preimage) = market.lightning.shop_invoice(Some(msat(20_000_500)));
    let estimate = owner.post("/lightning/fee-estimate", json!({ "invoice": invoice })).await.ok();
    assert!(estimate.is_u64(), "{estimate}");
    let wanted = json!({ "invoice": invoice, "max_fee_sats": 100, "reference": "p1" });
    let begun = owner.call(Call::post(BEGIN, &wanted).for_object().idempotent("pay-1")).await.ok();
    assert_eq!(fields(&begun), ["expires_at", "fee_sats", "message", "psbt", "request_id", "source"]);
    assert_eq!((&begun["source"], &begun["fee_sats"]), (&json!("offchain"), &json!(100)));
    assert!(text(&begun, "message").contains("amount: 20000500 msat\nmax_fee: 100000 msat"), "{begun}");
    let bare = owner.call(Call::post(BEGIN, &wanted).idempotent("pay-1")).await;
    assert_eq!(bare.ok(), begun["psbt"], "the same key is the same request, in either form");
    let other = Call::post(BEGIN, &json!({ "invoice": invoice })).idempotent("pay-1");
    owner.call(other).await.refused(422, "idempotency_mismatch");
    assert_eq!(offchain(&owner).await["held_msat"], 20_100_500);

    let ended = owner.post(END, signed(&owner, &begun)).await.ok();
    assert_eq!(
        (&ended["status"], &ended["fee_sats"], &ended["preimage"]),
        (&json!("PENDING"), &Value::Null, &Value::Null)
    );
    begin(&owner, &invoice).await.refused(409, "payment_in_progress");
    market.lightning.shop_claims(preimage).await;
    let path = format!("/lightning/send-request/{}", text(&begun, "request_id"));
    let done = owner.until(&path, |pay| pay["status"] == "SUCCEEDED").await;
    assert_eq!((&done["preimage"], &done["amount_sats"]), (&json!(preimage.to_string()), &json!(20_001)));
    let fee = done["fee_msat"].as_u64().expect("a fee");
    assert_eq!(done["fee_sats"].as_u64(), Some(fee.div_ceil(1_000)));
    assert_eq!(available(&owner).await, 50_000_000 - 20_000_500 - fee);
    assert_eq!(owner.post(END, signed(&owner, &begun)).await.ok(), done, "the same again answers the same");
    begin(&owner, &invoice).await.refused(409, "already_paid");
    let proof = owner.get(format!("{path}/authorization")).await.ok();
    assert_eq!((&proof["message"], &proof["psbt"]), (&begun["message"], &begun["psbt"]));
    let verdict =
        bip322::verify_simple_encoded(&text(&proof, "address"), &text(&proof, "message"), &text(&proof, "signature"));
    assert!(matches!(verdict, Ok(bip322::Verification::Valid { .. })), "{proof}");
    let stranger = market.gateway.registered(2).await;
    stranger.get(format!("{path}/authorization")).await.refused(404, "not_found");
    assert_eq!(stranger.get(&path).await.ok(), Value::Null);
    stranger.post(END, signed(&owner, &begun)).await.refused(404, "psbt_unknown");
}

async fn what_fails_says_why_and_gives_everything_back(market: &Market) {
    let owner = market.funded(1, 50_000).await;
    for (why, code) in [
        (PayFailure::NoLiquidity, "no_liquidity"),
        (PayFailure::FeeTooHigh, "fee_limit_too_low"),
        (PayFailure::Rejected, "rejected_by_payee"),
        (PayFailure::InvoiceExpired, "invoice_expired"),
        (PayFailure::NotPayable, "not_payable"),
    ] {
        market.lightning.node.hold_payments();
        let (invoice, _) = market.lightning.shop_invoice(Some(sat(1_000)));
        let begun = begin(&owner, &invoice).await;
        let ended = owner.post(END, signed(&owner, &begun.ok())).await.ok();
        assert_eq!(ended["status"], "PENDING", "{code}");
        market.lightning.node.fail_payments(why);
        let path = format!("/lightning/send-request/{}", text(&ended, "id"));
        let failed = owner.until(&path, |pay| pay["status"] == "FAILED").await;
        assert_eq!((&failed["error_code"], &failed["fee_sats"]), (&json!(code), &Value::Null));
        assert!(failed["error_message"].is_string() && failed["preimage"].is_null(), "{failed}");
        assert_eq!(available(&owner).await, 50_000_000, "{code}: what was held is free again");
    }
    let list = owner.get("/lightning/listpayments?direction=out&status=Failed").await.ok();
    assert_eq!(list["payments"].as_array().map(Vec::len), Some(5));
}

async fn a_neighbour_is_paid_in_the_books(market: &Market) {
    let payer = market.funded(1, 10_000).await;
    let payee = market.gateway.registered(2).await;
    let made = payee.post("/lightning/create-invoice", json!({ "amountless": true })).await.ok();
    let invoice = text(&made, "invoice");
    begin(&payer, &invoice).await.refused(400, "invalid_request");
    let wanted = json!({ "invoice": invoice, "amount_sats": 4_000 });
    payee.post(BEGIN, wanted.clone()).await.refused(409, "self_payment");
    assert_eq!(payer.post("/lightning/fee-estimate", json!({ "invoice": invoice })).await.ok(), json!(0));
    let begun = payer.post(BEGIN, wanted).await;
    assert_eq!(begun.header("sluice-fee-sats"), Some("0"));
    let ended = payer.post(END, signed(&payer, &begun.ok())).await.ok();
    assert_eq!(
        (&ended["status"], &ended["paid_by"], &ended["fee_msat"]),
        (&json!("SUCCEEDED"), &json!("book"), &json!(0))
    );
    let received = settled(&payee, &made).await;
    assert_eq!((&received["settled_by"], &received["amount_sats"]), (&json!("book"), &json!(4_000)));
    assert_eq!((available(&payer).await, available(&payee).await), (6_000_000, 4_000_000));
    assert_eq!(market.lightning.node.paid().0, 0, "nothing left the node");
}

async fn a_race_to_end_pays_once(market: &Market) {
    let owner = market.funded(1, 50_000).await;
    let (invoice, preimage) = market.lightning.shop_invoice(Some(sat(10_000)));
    let begun = begin(&owner, &invoice).await.ok();
    let body = signed(&owner, &begun);
    let ends = futures::future::join_all((0..12).map(|_| owner.post(END, body.clone()))).await;
    let id = ends[0].ok()["id"].clone();
    assert!(ends.iter().all(|end| end.ok()["id"] == id), "one payment, one answer");
    market.lightning.shop_claims(preimage).await;
    let path = format!("/lightning/send-request/{}", id.as_str().expect("an id"));
    let done = owner.until(&path, |pay| pay["status"] == "SUCCEEDED").await;
    let fee = done["fee_msat"].as_u64().expect("a fee");
    assert_eq!(available(&owner).await, 40_000_000 - fee);
    assert_eq!(offchain(&owner).await["held_msat"], 0);
    let (invoice, _) = market.lightning.shop_invoice(Some(sat(30_000)));
    let begins = futures::future::join_all((0..8).map(|_| begin(&owner, &invoice))).await;
    assert_eq!(begins.iter().filter(|begun| begun.status == 200).count(), 1, "one invoice, one payment");
}

async fn payments_are_listed_page_by_page(market: &Market) {
    let owner = market.funded(1, 10_000).await;
    for amount in 1..=4 {
        owner.post("/lightning/create-invoice", json!({ "amount_sats": amount })).await.ok();
    }
    let (mut seen, mut path) = (Vec::new(), "/lightning/listpayments?limit=2".to_owned());
    loop {
        let page = owner.get(&path).await.ok();
        seen.extend(page["payments"].as_array().expect("a list").iter().map(|one| one["amt_msat"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/lightning/listpayments?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, [4_000, 3_000, 2_000, 1_000, 10_000_000].map(|msat| json!(msat)), "newest first, each once");
    let now = owner.get("/lightning/listpayments").await.ok()["payments"][0]["created_at"].as_i64().expect("a time");
    for (filter, found) in [
        ("status=Pending".to_owned(), 4),
        ("status=Succeeded".to_owned(), 1),
        ("direction=out".to_owned(), 0),
        ("min_amount_msat=3000".to_owned(), 3),
        ("max_amount_msat=3000".to_owned(), 3),
        ("min_amount_msat=2000&max_amount_msat=3000".to_owned(), 2),
        (format!("since={}", now + 60), 0),
        (format!("until={}", now + 60), 5),
    ] {
        let list = owner.get(format!("/lightning/listpayments?{filter}")).await.ok();
        assert_eq!(list["payments"].as_array().map(Vec::len), Some(found), "{filter}");
    }
    let stranger = market.gateway.registered(2).await;
    assert_eq!(stranger.get("/lightning/listpayments").await.ok()["payments"], json!([]));
}

async fn one_text_with_two_ways_takes_the_one_that_is_there(market: &Market) {
    let owner = market.funded(1, 10_000).await;
    let owner = funded_on_fake(&market.gateway, &market.chain, owner, &[100_000]).await;
    let (invoice, preimage) = market.lightning.shop_invoice(Some(sat(3_000)));
    let to = stranger();
    let both = json!({ "address_or_invoice": format!("bitcoin:{to}?amount=0.00003&lightning={invoice}"), "min_confirmations": 1 });
    let begun = owner.post("/lightning/paybegin", both.clone()).await;
    assert_eq!(begun.header("sluice-source"), Some("offchain"));
    let body = signed(&owner, &begun.ok());
    owner.post(END, body.clone()).await.refused(404, "psbt_unknown");
    let ended = owner.post("/lightning/payend", body.clone()).await.ok();
    assert_eq!(
        fields(&ended),
        ["amount_sats", "asset", "created_at", "fee_sats", "id", "payment_type", "status", "txid"]
    );
    market.lightning.shop_claims(preimage).await;
    let path = format!("/lightning/send-request/{}", text(&ended, "id"));
    owner.until(&path, |pay| pay["status"] == "SUCCEEDED").await;
    let again = owner.post("/lightning/payend", body).await.ok();
    assert_eq!((&again["status"], &again["txid"], &again["id"]), (&json!("SUCCEEDED"), &Value::Null, &ended["id"]));

    market.gateway.flows().node().leave();
    let begun = owner.post("/lightning/paybegin", both).await;
    assert_eq!(begun.header("sluice-source"), Some("onchain"), "{begun}");
    let ended = owner.post("/lightning/payend", signed(&owner, &begun.ok())).await.ok();
    assert!(ended["txid"].is_string(), "{ended}");
    let rails = reqwest::get(format!("{}/health/ready", market.gateway.operator_url)).await.expect("an answer");
    assert_eq!(rails.status(), 200, "a node that is not here is no reason to send calls elsewhere");
    let told = market.gateway.health_until(|rails| !rails.lightning.ready).await;
    assert!(told.lightning.configured && told.lightning.reason.is_some(), "{told:?}");
}

async fn money_crosses_between_the_rails(market: &Market) {
    let owner = market.gateway.registered(1).await;
    let owner = funded_on_fake(&market.gateway, &market.chain, owner, &[100_000]).await;
    let chain = Arc::clone(&market.chain);
    market.lightning.node.send_through(move |script, amount| chain.pay(script, amount).expect("the fake pays"));
    market.lightning.node.fund(sluice::money::Sat::literal(500_000));
    market.lightning.network.mine(1);
    // Its own coins become off-chain money.
    let named = owner.post("/lightning/settle", json!({})).await.ok();
    assert_eq!(
        (named["results"][0]["result"].as_str(), named["total_channels_opened"].as_u64()),
        (Some("needs_signature"), Some(0))
    );
    let begun = owner.post("/lightning/settle-begin", json!({ "amount_sats": 80_000, "fee_rate": 2 })).await.ok();
    let ended = owner.post("/lightning/settle-end", signed(&owner, &begun)).await.ok();
    assert_eq!((ended["status"].as_str(), ended["amount_sats"].as_u64()), (Some("BROADCASTED"), Some(80_000)));
    market.chain.mine(1);
    let path = format!("/lightning/settle/{}", text(&ended, "id"));
    let credited = owner.until(&path, |settle| settle["status"] == "CREDITED").await;
    assert_eq!((credited["credited_sats"].as_u64(), credited["confirmations_left"].as_u64()), (Some(80_000), Some(0)));
    let credit = owner.get(&format!("/requests/{}", text(&credited["credits"][0], "id"))).await.ok();
    assert_eq!((credit["kind"].as_str(), credit["state"].as_str()), (Some("settle_credit"), Some("credited")));
    assert_eq!(available(&owner).await, 80_000_000);
    // And leaves again: what is on-chain does not cover it, so nobody has to say whose money it is.
    let wanted = json!({ "address_or_rgbinvoice": stranger().to_string(), "amount_sats": 50_000, "fee_rate": 2 });
    let begun = owner.post("/lightning/onchain-send-begin", wanted).await;
    assert_eq!(begun.header("sluice-source"), Some("offchain"));
    let ended = owner.post("/lightning/onchain-send-end", signed(&owner, &begun.ok())).await.ok();
    let id = text(&ended, "send_id");
    assert_eq!(ended["status"], "BROADCASTED");
    market.chain.mine(1);
    let done = owner.until(&format!("/onchain-send/{id}"), |send| send["status"] == "CONFIRMED").await;
    let fee = done["fee_sats"].as_u64().expect("a fee");
    assert_eq!((done["source"].as_str(), done["amount_sats_sent"].as_u64()), (Some("offchain"), Some(50_000)));
    assert_eq!(available(&owner).await, (30_000 - fee) * 1_000);
    let listed = owner.get("/onchain-send?limit=10").await.ok();
    let kinds: Vec<_> = listed["sends"].as_array().expect("a list").iter().map(|send| text(send, "source")).collect();
    assert_eq!(kinds, ["offchain", "onchain"], "newest first, whatever they move");
    let late = owner.post(&format!("/onchain-send/{id}/cancel"), json!({})).await;
    late.refused(409, "not_cancellable");
}

async fn what_crosses_is_checked_field_by_field(market: &Market) {
    let owner = market.funded(1, 50_000).await;
    let begin = "/lightning/onchain-send-begin";
    let wanted = |sats: u64| json!({ "address_or_rgbinvoice": stranger().to_string(), "amount_sats": sats, "fee_rate": 2, "source": "offchain" });
    owner.post(begin, wanted(10_000)).await.refused(409, "reserve_low");
    market.lightning.node.fund(sluice::money::Sat::literal(500_000));
    market.lightning.network.mine(1);
    owner.post(begin, wanted(60_000)).await.refused(409, "insufficient_funds");
    owner.post(begin, wanted(100)).await.refused(400, "amount_below_dust");
    let settle = "/lightning/settle-begin";
    for (body, code) in [
        (json!({ "amount_sats": 0, "fee_rate": 2 }), "invalid_request"),
        (json!({ "amount_sats": -1, "fee_rate": 2 }), "invalid_request"),
        (json!({ "amount_sats": 1.5, "fee_rate": 2 }), "invalid_request"),
        (json!({ "amount_sats": "5", "fee_rate": 2 }), "invalid_request"),
        (json!({ "amount_sats": 5_000 }), "invalid_request"),
        (json!({ "amount_sats": 5_000, "fee_rate": 0 }), "fee_rate_out_of_range"),
        (json!({ "amount_sats": 5, "fee_rate": 2 }), "amount_below_dust"),
    ] {
        owner.post(settle, body).await.refused(400, code);
    }
    owner.post(settle, json!({ "fee_rate": 2 })).await.refused(409, "insufficient_funds");
    let begun = owner.post(begin, wanted(10_000)).await.ok();
    let altered = owner.post("/lightning/onchain-send-end", json!({ "signed_psbt": begun })).await;
    altered.refused(400, "psbt_not_signed");
    owner.post("/lightning/settle-end", signed(&owner, &begun)).await.refused(404, "psbt_unknown");
    assert_eq!(available(&owner).await / 1_000_000, 39, "what was begun is held");
    let unknown = "0198c0f2-9d7c-7f6e-a1c2-0d3be5a90b47";
    owner.get(&format!("/lightning/settle/{unknown}")).await.refused(404, "not_found");
    owner.post(&format!("/onchain-send/{unknown}/cancel"), json!({})).await.refused(404, "not_found");
}
