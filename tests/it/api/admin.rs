//! The operator's calls over HTTP, with a node in memory.

use serde_json::{Value, json};
use sluice::connectors::fake::{FakeNode, Fault};
use sluice::flows::keys::Scope;
use sluice::money::Sat;
use sluice::ports::lightning::LightningNode;

use crate::harness::client::{Call, Caller};
use crate::harness::document::every_operation;
use crate::harness::gateway::Gateway;
use crate::harness::lightning::{CHANNEL_SIDE, Lightning};
use crate::harness::rig::Database;

struct Desk {
    gateway: Gateway,
    lightning: Lightning,
    operator: Caller,
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
    the_node_says_what_it_has,
    peers_are_listed_and_connected,
    a_channel_is_opened_once_for_a_key,
    a_lost_answer_is_not_tried_again,
    a_channel_is_closed_and_its_fees_are_set,
    the_reserve_has_an_address,
    what_happened_is_read_from_where_one_left_off,
    the_books_are_read_and_suspense_is_resolved,
);

async fn tell(database: Database, story: impl AsyncFnOnce(&Desk)) {
    let Some((gateway, _chain, lightning)) = Gateway::start_lightning(database, &[]).await else { return };
    let key = gateway.key(&[Scope::Admin], &[]).await;
    let operator = gateway.caller(1).without_wallet().with_key(&key);
    let desk = Desk { gateway, lightning, operator };
    story(&desk).await;
    desk.gateway.stop().await;
}

impl Desk {
    async fn channels(&self) -> Vec<Value> {
        let listed = self.operator.get("/admin/channels").await.ok();
        listed["channels"].as_array().expect("channels").clone()
    }

    /// Somebody else who can be connected to.
    fn another(&self) -> std::sync::Arc<FakeNode> {
        self.lightning.network.add_node()
    }

    async fn connect(&self, to: &FakeNode) {
        let asked = json!({ "peer": to.id().to_string(), "address": to.address() });
        self.operator.post("/admin/peers", asked).await.ok();
    }

    fn fund(&self, sat: u64) {
        self.lightning.node.fund(Sat::new(sat).expect("an amount"));
        self.lightning.network.mine(1);
    }
}

fn wanted(peer: &FakeNode, sat: u64) -> Value {
    json!({ "peer": peer.id().to_string(), "amount_sats": sat })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wallet_headers_are_not_enough_for_an_operator() {
    let started = Gateway::start_lightning(Database::Sqlite, &["auth.mode=wallet"]).await;
    let (gateway, _chain, _lightning) = started.expect("SQLite is always there");
    let wallet = gateway.registered(1).await;
    let weak = wallet.with_key(&gateway.key(&[Scope::Read, Scope::Send], &[]).await);
    let operators: Vec<_> = every_operation().into_iter().filter(|one| one.is_operators()).collect();
    assert!(operators.len() >= 13, "{} calls", operators.len());
    for operation in operators {
        let path = operation.path_with("00");
        let call = if operation.method == "GET" { Call::get(path) } else { Call::post(path, &operation.example()) };
        wallet.call(call.clone()).await.refused(401, "unauthorized");
        weak.call(call).await.refused(403, "forbidden");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_node_there_is_nothing_to_administer() {
    let (gateway, _chain) = Gateway::start_fake(&[]).await;
    let operator = gateway.caller(1).with_key(&gateway.key(&[Scope::Admin], &[]).await);
    for path in ["/admin/node", "/admin/peers", "/admin/channels", "/admin/reserve"] {
        operator.call(Call::get(path).expecting(501)).await.refused(501, "lightning_unavailable");
    }
    gateway.stop().await;
}

async fn the_node_says_what_it_has(desk: &Desk) {
    let node = desk.operator.get("/admin/node").await.ok();
    assert_eq!(node["id"], desk.lightning.node.id().to_string());
    assert_eq!((&node["ready"], &node["accepts_spends"], &node["halts"]), (&json!(true), &json!(true), &json!([])));
    assert_eq!(node["balance"]["channels_msat"], CHANNEL_SIDE.to_u64() * 1_000);
    assert_eq!(node["capabilities"]["channels"], true);
    desk.lightning.node.set_fault(Fault::Down);
    desk.operator.call(Call::get("/admin/node").expecting(503)).await.refused(503, "lightning_not_ready");
    desk.lightning.node.set_fault(None);
}

async fn peers_are_listed_and_connected(desk: &Desk) {
    let peers = desk.operator.get("/admin/peers").await.ok();
    assert_eq!(peers["peers"][0]["id"], desk.lightning.shop.id().to_string());
    let other = desk.another();
    desk.connect(&other).await;
    let peers = desk.operator.get("/admin/peers").await.ok();
    let found = peers["peers"].as_array().into_iter().flatten().find(|peer| peer["id"] == other.id().to_string());
    assert_eq!(found.map(|peer| &peer["connected"]), Some(&json!(true)), "{peers}");
    let nobody = json!({ "peer": sluice::http::api::examples::NODE, "address": "127.0.0.1:1" });
    desk.operator.post("/admin/peers", nobody).await.refused(409, "node_refused");
    for (field, bad) in [("peer", json!("x")), ("address", json!(""))] {
        let mut asked = json!({ "peer": other.id().to_string(), "address": other.address() });
        asked[field] = bad;
        assert_eq!(desk.operator.post("/admin/peers", asked).await.refused(400, "invalid_request")["field"], field);
    }
}

async fn a_channel_is_opened_once_for_a_key(desk: &Desk) {
    let other = desk.another();
    desk.fund(1_000_000);
    let open = |sat| Call::post("/admin/channels", &wanted(&other, sat)).idempotent("more-inbound");
    desk.operator.call(open(300_000)).await.refused(409, "node_refused");
    desk.connect(&other).await;
    // What was refused was not done, and does not use the key up.
    let first = desk.operator.call(open(300_000)).await.ok();
    assert_eq!(desk.operator.call(open(300_000)).await.ok(), first);
    desk.operator.call(open(300_001)).await.refused(422, "idempotency_mismatch");
    assert_eq!(desk.channels().await.len(), 2);
    desk.lightning.network.mine(6);
    let channel = desk.channels().await.into_iter().find(|channel| channel["id"] == first["id"]).expect("the channel");
    assert_eq!((&channel["usable"], &channel["capacity_sats"]), (&json!(true), &json!(300_000)));
    assert_eq!(channel["can_send_msat"], 300_000_000);
    for (field, bad) in [("peer", json!("02")), ("amount_sats", json!(0)), ("push_msat", json!(300_000_001))] {
        let mut asked = wanted(&other, 300_000);
        asked[field] = bad;
        let refused = desk.operator.post("/admin/channels", asked).await.refused(400, "invalid_request");
        assert_eq!(refused["field"], field);
    }
    assert_eq!(desk.channels().await.len(), 2);
}

async fn a_lost_answer_is_not_tried_again(desk: &Desk) {
    let other = desk.another();
    desk.fund(1_000_000);
    desk.connect(&other).await;
    let open = || Call::post("/admin/channels", &wanted(&other, 300_000)).idempotent("k");
    desk.lightning.node.set_fault(Fault::AnswerLost);
    desk.operator.call(open().expecting(503)).await.refused(503, "lightning_not_ready");
    desk.lightning.node.set_fault(None);
    desk.operator.call(open()).await.refused(409, "outcome_unknown");
    assert_eq!(desk.channels().await.len(), 2, "it was opened, once");
    desk.lightning.network.mine(1);
}

async fn a_channel_is_closed_and_its_fees_are_set(desk: &Desk) {
    let id = &desk.lightning.channel;
    let fees = json!({ "base_msat": 1_500, "parts_per_million": 250 });
    desk.operator.post(format!("/admin/channels/{id}/fees"), fees.clone()).await.ok();
    let channel = desk.channels().await.remove(0);
    assert_eq!((&channel["fee_base_msat"], &channel["fee_parts_per_million"]), (&json!(1_500), &json!(250)));
    desk.operator.post("/admin/channels/00/fees", fees).await.refused(404, "not_found");
    desk.operator.post_empty("/admin/channels/00/close").await.refused(404, "not_found");
    let wrong = json!({ "how": "softly" });
    desk.operator.post(format!("/admin/channels/{id}/close"), wrong).await.refused(400, "invalid_request");
    desk.operator.post_empty(format!("/admin/channels/{id}/close")).await.ok();
    assert!(desk.channels().await.is_empty());
    let node = desk.operator.get("/admin/node").await.ok();
    assert_eq!(node["balance"]["closing_sats"], CHANNEL_SIDE.to_u64());
    desk.operator.post_empty(format!("/admin/channels/{id}/close")).await.refused(404, "not_found");
    desk.lightning.network.mine(1);
    let node = desk.operator.get("/admin/node").await.ok();
    assert_eq!(node["balance"]["onchain_confirmed_sats"], CHANNEL_SIDE.to_u64());
}

async fn the_reserve_has_an_address(desk: &Desk) {
    desk.lightning.node.set_reserve(Sat::literal(30_000));
    let reserve = desk.operator.get("/admin/reserve").await.ok();
    assert_eq!((&reserve["required_sats"], &reserve["missing_sats"]), (&json!(30_000), &json!(30_000)));
    assert_eq!(desk.operator.get("/admin/reserve").await.ok(), reserve, "the same address");
    let another = desk.operator.post_empty("/admin/reserve").await.ok();
    assert_ne!(another["address"], reserve["address"]);
    desk.fund(50_000);
    let reserve = desk.operator.get("/admin/reserve").await.ok();
    assert_eq!((&reserve["confirmed_sats"], &reserve["missing_sats"]), (&json!(50_000), &json!(0)));
    assert!(desk.lightning.node.balance().await.expect("a balance").reserve == Sat::literal(30_000));
}

async fn the_books_are_read_and_suspense_is_resolved(desk: &Desk) {
    let side = i64::try_from(CHANNEL_SIDE.to_u64()).expect("it fits") * 1_000;
    desk.fund(7_000);
    let waiting = desk.operator.until("/admin/suspense", |page| page["items"][1]["amount_msat"] == 7_000_000).await;
    assert_eq!((&waiting["items"][0]["amount_msat"], &waiting["next_cursor"]), (&json!(side), &Value::Null));
    assert_eq!(waiting["items"][1]["about"]["kind"], "arrived");
    let page = desk.operator.get("/admin/suspense?limit=1").await.ok();
    let next = format!("/admin/suspense?limit=1&cursor={}", page["next_cursor"].as_str().expect("there is more"));
    assert_eq!(desk.operator.get(next).await.ok()["items"][0], waiting["items"][1]);

    let wallet = desk.gateway.registered(1).await;
    let item = waiting["items"][1]["id"].as_str().expect("an id");
    let to = wallet.wallet.keys.id().to_string();
    let resolve = |to: &str, reason: &str, key: &str| {
        let asked = json!({ "to": to, "reason": reason });
        Call::post(format!("/admin/suspense/{item}/resolve"), &asked).idempotent(key)
    };
    desk.operator.call(resolve("capitol", "r", "a")).await.refused(400, "invalid_request");
    desk.operator.call(resolve("capital", "", "a")).await.refused(400, "invalid_request");
    desk.operator.call(resolve("0000000000000000", "r", "a")).await.refused(404, "wallet_not_registered");
    let done = desk.operator.call(resolve(&to, "ticket 7", "a")).await.ok();
    assert_eq!(done["account"], format!("wallet:{to}"));
    assert_eq!(desk.operator.call(resolve(&to, "ticket 7", "a")).await.ok(), done);
    desk.operator.call(resolve("capital", "ticket 7", "a")).await.refused(422, "idempotency_mismatch");
    desk.operator.call(resolve(&to, "ticket 7", "b")).await.refused(404, "not_found");
    let balance = wallet.get("/lightning/balance").await.ok();
    assert_eq!(balance["balance"]["offchain_balance"]["total_msat"], 7_000_000);
    wallet.until("/events", |seen| seen.to_string().contains("operator.suspense_resolved")).await;

    let trial = desk.operator.get("/admin/trial-balance").await.ok();
    assert_eq!(trial["sum_msat"], 0);
    let line = |account: &str| {
        let lines = trial["lines"].as_array().into_iter().flatten();
        lines.clone().find(|line| line["account"] == account).map(|line| line["balance_msat"].clone())
    };
    assert_eq!((line("wallets"), line("operator:suspense")), (Some(json!(7_000_000)), Some(json!(side))));
    assert_eq!(line("node:onchain"), Some(json!(-7_000_000)));
    let gains = desk.operator.get("/admin/profit-and-loss").await.ok();
    assert_eq!((&gains["profit_msat"], &gains["suspense_msat"]), (&json!(0), &json!(side)));
    let before = desk.operator.get("/admin/profit-and-loss?from=0&to=1").await.ok();
    assert_eq!(before["suspense_msat"], 0);
    desk.operator.get("/admin/profit-and-loss?from=x").await.refused(400, "invalid_request");
}

async fn what_happened_is_read_from_where_one_left_off(desk: &Desk) {
    desk.gateway.registered(1).await;
    desk.operator.post_empty("/admin/reserve").await.ok();
    let is_of_node = |event: &Value| event["kind"].as_str().is_some_and(|kind| kind.starts_with("node."));
    let has_come = |page: &Value| page["events"].as_array().is_some_and(|events| events.iter().any(is_of_node));
    desk.operator.until("/admin/events", has_come).await;
    let read = async |after: i64| {
        let page = desk.operator.get(format!("/admin/events?after={after}&limit=1")).await.ok();
        let event = page["events"][0].clone();
        (event, page["next_after"].as_i64().expect("a number"))
    };
    let (mut of_node, mut after) = (0, 0);
    loop {
        let (event, next) = read(after).await;
        let Some(kind) = event["kind"].as_str() else { break };
        assert!(next > after && event["seq"] == next, "{event}");
        assert!(!kind.starts_with("wallet."), "what happened to a wallet is that wallet's: {event}");
        of_node += usize::from(is_of_node(&event));
        after = next;
    }
    assert!(of_node > 0, "page by page it is the same");
    desk.operator.get("/admin/events?after=-1").await.refused(400, "invalid_request");
    desk.gateway.caller(1).get("/admin/events").await.refused(401, "unauthorized");
}
