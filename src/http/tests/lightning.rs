//! The Lightning calls over a node in memory: what they answer, and what they refuse.

use sluice_signer::Signer;

use super::*;
use crate::connectors::fake::{FakeNetwork, FakeNode};
use crate::flows::node;
use crate::http::api::examples;
use crate::money::{Amount, Sat};
use crate::ports::lightning::{
    Description, Destination, LightningNode, NewInvoice, NewOffer, Payment, PaymentId, Preimage,
};

const MNEMONIC: &str = "split capable text loop dream live outside suspect eight carry fine relax";
const OTHER: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

/// A gateway with a node, a shop with another, and a channel between them.
struct Scene {
    api: Api,
    shop: Arc<FakeNode>,
    clock: Clock,
}

/// A registered wallet whose keys are at hand.
struct Owner<'a> {
    scene: &'a Scene,
    signer: Signer,
}

impl Scene {
    async fn start() -> Self {
        let clock = Clock::manual(Timestamp::from_millis(NOW));
        let network = FakeNetwork::new(clock.clone());
        let (node, shop) = (network.add_node(), network.add_node());
        network.open(&node, &shop, Sat::literal(1_000_000), Sat::literal(1_000_000));
        let slot = NodeSlot::expected();
        slot.arrive(node);
        slot.accept_spends();
        Self { api: api_with(Config::default(), slot, clock.clone()).await, shop, clock }
    }

    async fn owner(&self, mnemonic: &str) -> Owner<'_> {
        let owner = Owner { scene: self, signer: Signer::from_mnemonic(Network::Regtest, mnemonic, "").unwrap() };
        assert_eq!(owner.post("/wallet/register", "").await.status, 200);
        owner
    }

    async fn settle(&self) {
        assert_eq!(node::look_at_everything(&self.api.flows).await.unwrap(), 0);
    }

    /// The shop pays an invoice of the gateway.
    async fn shop_pays(&self, made: &Value, msat: u64) {
        let invoice = made["invoice"].as_str().unwrap().to_owned();
        let hash = made["payment_hash"].as_str().unwrap().parse().unwrap();
        let amount = Amount::from_msat(msat).unwrap();
        let destination = Destination::Bolt11(invoice);
        let max_fee = Amount::from_sat(Sat::literal(100));
        self.shop.pay(&Payment { id: PaymentId(rand::random()), hash, destination, amount, max_fee }).await;
        self.settle().await;
    }
}

impl Owner<'_> {
    async fn ask(&self, method: &str, path: &str, body: &str, key: Option<&str>) -> Answer {
        let xpubs = self.signer.wallet_xpubs();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("xpub-van", xpubs.xpub_van.to_string())
            .header("xpub-col", xpubs.xpub_col.to_string())
            .header("master-fingerprint", xpubs.master_fingerprint.to_string());
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.scene.api.ask(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", None).await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, body, None).await
    }

    async fn invoice(&self, body: &str) -> Value {
        let made = self.post("/lightning/create-invoice", body).await;
        assert_eq!(made.status, 200, "{}", made.body);
        made.body
    }

    /// Off-chain money, from the shop.
    async fn funded(self, sats: u64) -> Self {
        let made = self.invoice(&format!(r#"{{"amount_sats":{sats}}}"#)).await;
        self.scene.shop_pays(&made, sats * 1_000).await;
        self
    }

    /// What ends what was begun.
    fn signed(&self, begun: &Value) -> String {
        let mut psbt: bitcoin::Psbt = begun.as_str().unwrap().parse().unwrap();
        self.signer.sign(&mut psbt).unwrap();
        json!({ "signed_psbt": psbt.to_string() }).to_string()
    }

    async fn available(&self) -> u64 {
        let balance = self.get("/lightning/balance").await.body;
        balance["balance"]["offchain_balance"]["available_msat"].as_u64().unwrap()
    }
}

fn to_pay(invoice: &str) -> String {
    json!({ "invoice": invoice }).to_string()
}

#[tokio::test]
async fn an_invoice_is_made_paid_and_read_back() {
    let scene = Scene::start().await;
    let owner = scene.owner(MNEMONIC).await;
    let made =
        owner.invoice(r#"{"amount_sats":5000,"description":"order 7","reference":"r7","expiry_seconds":60}"#).await;
    assert_eq!(
        (&made["status"], &made["payment_type"], &made["warning"]),
        (&json!("OPEN"), &json!("BTC"), &Value::Null)
    );
    assert_eq!((&made["amount_sats"], &made["amount_msat"]), (&json!(5_000), &json!(5_000_000)));
    let id = made["id"].as_str().unwrap();
    let path = format!("/lightning/receive-request/{id}");
    assert_eq!(owner.get(&path).await.body, made, "it is read back as it was made");
    let decoded = owner.post("/lightning/decode", &json!({ "input": made["invoice"] }).to_string()).await.body;
    assert_eq!(
        (&decoded["kind"], &decoded["is_own"], &decoded["is_expired"]),
        (&json!("bolt11"), &json!(true), &json!(false))
    );
    assert_eq!((&decoded["payment_hash"], &decoded["description"]), (&made["payment_hash"], &json!("order 7")));

    scene.shop_pays(&made, 5_000_900).await;
    let settled = owner.get(&path).await.body;
    assert_eq!((&settled["status"], &settled["settled_by"]), (&json!("SETTLED"), &json!("channel")));
    assert_eq!(
        (&settled["amount_sats"], &settled["received_msat"]),
        (&json!(5_000), &json!(5_000_900)),
        "rounded down"
    );
    let offchain = owner.get("/lightning/balance").await.body["balance"]["offchain_balance"].clone();
    assert_eq!((&offchain["total"], &offchain["total_msat"]), (&json!(5_000), &json!(5_000_900)));
    let request = owner.get(&format!("/requests/{id}")).await.body;
    assert_eq!((&request["kind"], &request["lightning_receive"]), (&json!("lightning_receive"), &settled));
    let other = scene.owner(OTHER).await;
    assert_eq!(other.get(&path).await.body, Value::Null, "another wallet's is as unknown as one that never was");
    assert_eq!(code(&other.get(&format!("/requests/{id}")).await), (404, "not_found"));

    let large = owner.invoice(r#"{"amount_sats":90000000}"#).await;
    assert_eq!(large["warning"], "inbound_liquidity_low");
    scene.clock.advance(std::time::Duration::from_secs(61));
    let list = owner.get("/lightning/listpayments?direction=in&status=Succeeded").await.body;
    assert_eq!((list["payments"].as_array().unwrap().len(), &list["payments"][0]["request_id"]), (1, &json!(id)));
    assert_eq!(list["payments"][0]["amt_msat"], 5_000_900);
}

#[tokio::test]
async fn what_an_invoice_can_not_be_is_refused_and_writes_nothing() {
    let scene = Scene::start().await;
    let owner = scene.owner(MNEMONIC).await;
    for (body, status, error, field) in [
        (r#"{"amount_sats":0}"#, 400, "invalid_request", "amount_sats"),
        (r#"{"amount_sats":-5}"#, 400, "invalid_request", "amount_sats"),
        (r#"{"amount_sats":1.5}"#, 400, "invalid_request", "amount_sats"),
        (r#"{"amount_sats":2100000000000001}"#, 400, "invalid_request", "amount_sats"),
        (r#"{}"#, 400, "invalid_request", "amount_sats"),
        (r#"{"amount_sats":5,"expiry_seconds":0}"#, 400, "invalid_request", "expiry_seconds"),
        (r#"{"amount_sats":5,"expiry_seconds":2678401}"#, 400, "invalid_request", "expiry_seconds"),
        (r#"{"amount_sats":5,"reference":""}"#, 400, "invalid_request", "reference"),
        (r#"{"amount_sats":5,"asset":{"asset_id":"rgb:x","amount":1}}"#, 501, "asset_lightning_unavailable", ""),
    ] {
        let answer = owner.post("/lightning/create-invoice", body).await;
        assert_eq!(code(&answer), (status, error), "{body}");
        assert_eq!(answer.body["field"].as_str().unwrap_or_default(), field, "{body}");
    }
    assert_eq!(owner.get("/lightning/listpayments").await.body["payments"], json!([]));
    let ask = async |body| owner.ask("POST", "/lightning/create-invoice", body, Some("k")).await;
    let first = ask(r#"{"amountless":true}"#).await.body;
    assert_eq!((&first["amount_sats"], &first["status"]), (&Value::Null, &json!("OPEN")));
    assert_eq!(ask(r#"{"amountless":true}"#).await.body, first, "one key is one invoice");
    assert_eq!(code(&ask(r#"{"amount_sats":5}"#).await), (422, "idempotency_mismatch"));
    let list = owner.get("/lightning/listpayments").await.body;
    assert_eq!((list["payments"].as_array().unwrap().len(), &list["payments"][0]["amt_msat"]), (1, &json!(0)));
}

#[tokio::test]
async fn a_payment_is_begun_signed_and_proven() {
    let scene = Scene::start().await;
    let owner = scene.owner(MNEMONIC).await.funded(100_000).await;
    let (invoice, preimage) = scene.shop.invoice(Some(Amount::from_msat(20_000_500).unwrap()), "goods");
    let fee = owner.post("/lightning/fee-estimate", &to_pay(&invoice)).await.body;
    assert!(fee.is_u64(), "{fee}");
    let body = json!({ "invoice": format!("lightning:{invoice}"), "max_fee_sats": 50, "reference": "p1" }).to_string();
    let ask = async || owner.ask("POST", "/lightning/pay-invoice-begin", &body, Some("pay-1")).await;
    let begun = ask().await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    assert_eq!(begun.headers["sluice-source"], "offchain");
    assert_eq!(begun.headers["sluice-fee-sats"], "50");
    assert_eq!(ask().await.body, begun.body, "the same key is the same request");
    let id = begun.headers["sluice-request-id"].to_str().unwrap().to_owned();
    assert_eq!(owner.available().await, 100_000_000 - 20_000_500 - 50_000, "what is begun is set aside");
    let path = format!("/lightning/send-request/{id}");
    assert_eq!(owner.get(&path).await.body["status"], "PENDING");
    assert_eq!(owner.get("/lightning/listpayments?direction=out").await.body["payments"], json!([]), "no payment yet");
    let unsigned = json!({ "signed_psbt": begun.body }).to_string();
    assert_eq!(code(&owner.post("/lightning/pay-invoice-end", &unsigned).await), (400, "psbt_not_signed"));
    let signed = owner.signed(&begun.body);
    assert_eq!(code(&owner.post("/lightning/payend", &signed).await), (404, "psbt_unknown"), "another door");
    assert_eq!(owner.post("/lightning/pay-invoice-end", &signed).await.body["status"], "PENDING");
    scene.shop.claim(preimage.hash(), Some(preimage)).await.unwrap();
    scene.settle().await;
    let paid = owner.post("/lightning/pay-invoice-end", &signed).await.body;
    assert_eq!(paid, owner.get(&path).await.body, "the same again answers the same");
    assert_eq!((&paid["status"], &paid["preimage"]), (&json!("SUCCEEDED"), &json!(preimage.to_string())));
    assert_eq!((&paid["amount_sats"], &paid["amount_msat"]), (&json!(20_001), &json!(20_000_500)), "rounded up");
    assert!(paid["fee_sats"].is_u64() && paid["fee_msat"].is_u64(), "{paid}");
    assert_eq!(owner.available().await, 100_000_000 - 20_000_500 - paid["fee_msat"].as_u64().unwrap());
    assert_eq!(owner.get(&format!("/requests/{id}")).await.body["lightning_send"], paid);

    let proof = owner.get(&format!("{path}/authorization")).await.body;
    let text = |name: &str| proof[name].as_str().unwrap().to_owned();
    let verdict = bip322::verify_simple_encoded(&text("address"), &text("message"), &text("signature"));
    assert!(matches!(verdict, Ok(bip322::Verification::Valid { .. })), "{proof}");
    assert_eq!(text("address"), examples::ADDRESS);
    assert!(text("message").contains(&format!("to: {}", preimage.hash())), "{proof}");
    let other = scene.owner(OTHER).await;
    assert_eq!(code(&other.get(&format!("{path}/authorization")).await), (404, "not_found"));
    assert_eq!(other.get(&path).await.body, Value::Null);
    assert_eq!(code(&owner.post("/lightning/pay-invoice-begin", &to_pay(&invoice)).await), (409, "already_paid"));
}

#[tokio::test]
async fn what_can_not_be_paid_is_refused_by_name() {
    let scene = Scene::start().await;
    let owner = scene.owner(MNEMONIC).await.funded(50_000).await;
    let sats = |n| Some(Amount::from_sat(Sat::new(n).unwrap()));
    let (invoice, _) = scene.shop.invoice(sats(1_000), "goods");
    let (open, _) = scene.shop.invoice(None, "any");
    let (large, _) = scene.shop.invoice(sats(60_000), "much");
    let own = owner.invoice(r#"{"amount_sats":5}"#).await["invoice"].as_str().unwrap().to_owned();
    let mut tampered = invoice.clone();
    let last = if tampered.pop() == Some('q') { 'p' } else { 'q' };
    tampered.push(last);
    let mainnet = "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql";
    let begin = async |body: Value| owner.post("/lightning/pay-invoice-begin", &body.to_string()).await;
    for (body, status, error, field) in [
        (json!({ "invoice": tampered }), 400, "invalid_invoice", "invoice"),
        (json!({ "invoice": "" }), 400, "invalid_invoice", "invoice"),
        (json!({ "invoice": mainnet }), 400, "wrong_network", "invoice"),
        (json!({ "invoice": invoice, "amount_sats": 999 }), 400, "invalid_request", "amount_sats"),
        (json!({ "invoice": open }), 400, "invalid_request", "amount_sats"),
        (json!({ "invoice": open, "amount_sats": 0 }), 400, "invalid_request", "amount_sats"),
        (json!({ "invoice": invoice, "expires_in_seconds": 59 }), 400, "invalid_request", "expires_in_seconds"),
        (json!({ "invoice": large }), 409, "insufficient_funds", ""),
        (json!({ "invoice": own }), 409, "self_payment", ""),
    ] {
        let answer = begin(body.clone()).await;
        assert_eq!(code(&answer), (status, error), "{body} {}", answer.body);
        assert_eq!(answer.body["field"].as_str().unwrap_or_default(), field, "{body}");
    }
    assert_eq!(owner.available().await, 50_000_000, "nothing is set aside");
    let fee = async |body: Value| owner.post("/lightning/fee-estimate", &body.to_string()).await;
    assert_eq!(fee(json!({ "invoice": own })).await.body, 0, "in the books");
    assert_eq!(code(&fee(json!({ "invoice": mainnet })).await), (400, "wrong_network"));
    assert_eq!(code(&fee(json!({ "invoice": open })).await), (400, "invalid_request"));
    assert_eq!(code(&fee(json!({ "invoice": open, "amount_sats": 0 })).await), (400, "invalid_request"));
    let asset = json!({ "invoice": open, "asset": { "asset_id": "rgb:x", "amount": 1 } });
    assert_eq!(code(&fee(asset).await), (501, "asset_lightning_unavailable"));
    scene.clock.advance(std::time::Duration::from_secs(3_601));
    assert_eq!(code(&begin(json!({ "invoice": invoice })).await), (409, "invoice_expired"));
    assert_eq!(code(&fee(json!({ "invoice": invoice })).await), (409, "invoice_expired"));
    let decoded = owner.post("/lightning/decode", &json!({ "input": invoice }).to_string()).await.body;
    assert_eq!(decoded["is_expired"], true);
}

#[tokio::test]
async fn a_neighbour_is_paid_in_the_books_through_the_door_of_payments() {
    let scene = Scene::start().await;
    let payer = scene.owner(MNEMONIC).await.funded(10_000).await;
    let payee = scene.owner(OTHER).await;
    let made = payee.post("/lightning/receive", r#"{"amount_sat":4000}"#).await.body;
    let (address, invoice) = (made["btc_address"].as_str().unwrap(), made["ln_invoice"].as_str().unwrap());
    let uri = format!("bitcoin:{address}?amount=0.00004000&lightning={}", invoice.to_uppercase());
    let begun = payer.post("/lightning/paybegin", &json!({ "address_or_invoice": uri }).to_string()).await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    assert_eq!(begun.headers["sluice-source"], "offchain");
    let signed = payer.signed(&begun.body);
    assert_eq!(code(&payer.post("/lightning/pay-invoice-end", &signed).await), (404, "psbt_unknown"), "another door");
    let ended = payer.post("/lightning/payend", &signed).await.body;
    assert_eq!(
        (&ended["status"], &ended["amount_sats"], &ended["fee_sats"]),
        (&json!("SUCCEEDED"), &json!(4_000), &json!(0))
    );
    assert_eq!(ended, payer.post("/lightning/payend", &signed).await.body, "the same again answers the same");
    let id = made["ln_request_id"].as_str().unwrap();
    let received = payee.get(&format!("/lightning/receive-request/{id}")).await.body;
    assert_eq!((&received["status"], &received["settled_by"]), (&json!("SETTLED"), &json!("book")));
    assert_eq!((payer.available().await, payee.available().await), (6_000_000, 4_000_000));
    let sent = payer.get(&format!("/lightning/send-request/{}", ended["id"].as_str().unwrap())).await.body;
    assert_eq!((&sent["paid_by"], &sent["fee_msat"]), (&json!("book"), &json!(0)));
    let path = format!("/lightning/listpayments?payment_hash={}", sent["payment_hash"].as_str().unwrap());
    assert_eq!(payer.get(&path).await.body["payments"][0]["inbound"], false);

    let receive = async |body, key| payee.ask("POST", "/lightning/receive", body, Some(key)).await.body;
    let first = receive("{}", "r1").await;
    assert_eq!(first, receive("{}", "r1").await, "one key is one address and one invoice");
    let open = payee.post("/lightning/decode", &json!({ "input": first["ln_invoice"] }).to_string()).await.body;
    assert_eq!(open["amount_msat"], Value::Null);
}

#[tokio::test]
async fn whatever_can_be_paid_can_be_decoded() {
    let scene = Scene::start().await;
    let owner = scene.owner(MNEMONIC).await;
    let decode = async |input: &str| owner.post("/lightning/decode", &json!({ "input": input }).to_string()).await;
    let address = decode(&examples::ADDRESS.to_uppercase()).await.body;
    assert_eq!((&address["kind"], &address["address"]), (&json!("address"), &json!(examples::ADDRESS)));
    let uri = format!("bitcoin:{}?amount=0.0001&label=shop&message=tea&lightning=LNBCRT1", examples::ADDRESS);
    let read = decode(&uri).await.body;
    assert_eq!(
        (&read["kind"], &read["amount_sats"], &read["amount_msat"]),
        (&json!("bip21"), &json!(10_000), &json!(10_000_000))
    );
    assert_eq!(
        (&read["label"], &read["description"], &read["lightning"]),
        (&json!("shop"), &json!("tea"), &json!("LNBCRT1"))
    );
    let invoice = decode(examples::INVOICE).await.body;
    assert_eq!((&invoice["payment_hash"], &invoice["payee_pubkey"]), (&json!(examples::HASH), &json!(examples::NODE)));
    assert_eq!((&invoice["is_own"], &invoice["amount_sats"]), (&json!(false), &json!(5_000)));
    let text = scene
        .shop
        .create_offer(&NewOffer { amount: None, description: "tips".to_owned(), expires_in: None })
        .await
        .unwrap();
    let offer = decode(&text.to_uppercase()).await.body;
    assert_eq!((&offer["kind"], &offer["description"]), (&json!("bolt12_offer"), &json!("tips")));
    assert_eq!((&offer["text"], &offer["is_expired"]), (&json!(text), &json!(false)));
    for (input, status, error) in [
        ("", 400, "invalid_address"),
        ("nonsense", 400, "invalid_address"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", 400, "wrong_network"),
        ("bitcoin:?label=x", 400, "invalid_address"),
        ("lnbcrt1nonsense", 400, "invalid_invoice"),
        ("lno1nonsense", 400, "invalid_invoice"),
        ("lnurl1abc", 400, "invalid_request"),
        ("alice@example.com", 400, "invalid_request"),
        ("rgb:x", 501, "assets_unavailable"),
    ] {
        assert_eq!(code(&decode(input).await), (status, error), "{input}");
    }
    let paying = json!({ "address_or_invoice": "alice@example.com" }).to_string();
    let name = owner.post("/lightning/paybegin", &paying).await;
    assert_eq!((code(&name), name.body["field"].as_str()), ((400, "invalid_request"), Some("address_or_invoice")));
}

#[tokio::test]
async fn a_node_that_is_not_here_is_said_so() {
    let scene = Scene::start().await;
    let owner = scene.owner(MNEMONIC).await;
    let can = owner.get("/lightning/capabilities").await.body;
    assert_eq!((&can["lightning"]["ready"], &can["lightning"]["bolt12"]), (&json!(true), &json!(true)));
    assert_eq!((&can["lightning"]["reason"], &can["onchain"]), (&Value::Null, &json!(true)));
    scene.api.flows.node().leave();
    let can = owner.get("/lightning/capabilities").await.body;
    assert_eq!((&can["lightning"]["configured"], &can["lightning"]["bolt11"]), (&json!(true), &json!(false)));
    assert!(can["lightning"]["reason"].is_string(), "{can}");
    assert_eq!(
        code(&owner.post("/lightning/create-invoice", r#"{"amount_sats":5}"#).await),
        (503, "lightning_not_ready")
    );
    let received = owner.post("/lightning/receive", "").await.body;
    assert_eq!((&received["ln_invoice"], &received["ln_request_id"]), (&json!(""), &Value::Null));
    assert!(received["btc_address"].is_string(), "an address needs no node");
}

#[tokio::test]
async fn without_a_node_input_is_checked_before_it_is_said_that_there_is_none() {
    let api = Api::registered(Config::default()).await;
    for path in ["/lightning/pay-invoice-begin", "/lightning/fee-estimate"] {
        assert_eq!(code(&api.post(path, &to_pay("nonsense")).await), (400, "invalid_invoice"), "{path}");
        assert_eq!(code(&api.post(path, &to_pay(examples::INVOICE)).await), (501, "lightning_unavailable"), "{path}");
    }
    let can = api.get("/lightning/capabilities").await.body;
    assert_eq!((&can["lightning"]["configured"], &can["lightning"]["ready"]), (&json!(false), &json!(false)));
}

#[tokio::test]
async fn an_offer_is_paid_by_the_invoice_that_its_payee_gives() {
    let scene = Scene::start().await;
    let owner = scene.owner(MNEMONIC).await.funded(10_000).await;
    let amount = Some(Amount::from_sat(Sat::literal(700)));
    let offer = NewOffer { amount, description: "coffee".to_owned(), expires_in: None };
    let offer = scene.shop.create_offer(&offer).await.unwrap();
    let begun = owner.post("/lightning/pay-invoice-begin", &to_pay(&format!("lightning:{offer}"))).await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    let ended = owner.post("/lightning/pay-invoice-end", &owner.signed(&begun.body)).await.body;
    assert_eq!(ended["amount_sats"], 700);
    assert_eq!(code(&owner.post("/lightning/fee-estimate", &to_pay(&offer)).await), (400, "invalid_invoice"));
}

/// The shape of an invoice that is only ever shown: it can be read, and asks for what the example says.
#[tokio::test]
async fn the_example_invoice_is_what_its_maker_would_make() {
    let network = FakeNetwork::new(Clock::manual(Timestamp::from_millis(NOW)));
    let node = network.add_node();
    let preimage: Preimage = examples::PREIMAGE.parse().unwrap();
    let expires_in = std::time::Duration::from_secs(50 * 366 * 86_400);
    let description = Description::Text("order 7".to_owned());
    let amount = Some(Amount::from_sat(Sat::literal(5_000)));
    let new = NewInvoice { hash: preimage.hash(), amount, description, expires_in };
    assert_eq!(node.create_invoice(&new).await.unwrap(), examples::INVOICE);
    assert_eq!(
        (node.id().to_string().as_str(), preimage.hash().to_string().as_str()),
        (examples::NODE, examples::HASH)
    );
}
