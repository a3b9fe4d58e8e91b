//! Leaving with what the gateway knows of a wallet's assets: one signature, one export, and only for the owner.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::Psbt;
use serde_json::{Value, json};
use sluice::assets::fake::{FakeEngine, World};
use sluice::chain::fake::FakeChain;
use sluice::clock::Clock;
use sluice::domain::wallet::{Account, WalletKeys};
use sluice::money::{Amount, Sat};
use sluice::ports::assets::{Asset, AssetEngine, NewAsset};

use crate::harness::assets::side;
use crate::harness::client::{Call, Caller};
use crate::harness::gateway::Gateway;
use crate::harness::rig::Database;

const BEGIN: &str = "/wallet/export-begin";
const END: &str = "/wallet/export-end";
const PASSWORD: &str = "a password of a test";

struct Scene {
    gateway: Gateway,
    chain: Arc<FakeChain>,
    engine: Arc<FakeEngine>,
}

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

stories!(the_owner_leaves_with_everything, nobody_else_does, a_key_stands_for_one_export);

async fn tell(database: Database, story: impl AsyncFnOnce(&Scene)) {
    let Some((gateway, chain)) = Gateway::start_fake_on(database, &[]).await else { return };
    let engine = engine_on(&chain);
    gateway.flows().use_assets(side(engine.clone()));
    let scene = Scene { gateway, chain, engine };
    story(&scene).await;
    scene.gateway.stop().await;
}

/// An engine that knows nothing yet.
fn engine_on(chain: &Arc<FakeChain>) -> Arc<FakeEngine> {
    FakeEngine::new(World::new(Clock::System), Arc::<FakeChain>::clone(chain))
}

impl Scene {
    /// A wallet that has issued an asset.
    async fn issuer(&self, number: u32) -> (Caller, Vec<Asset>) {
        let owner = self.gateway.registered(number).await;
        let keys = &owner.wallet.keys;
        let script = keys.scripts(Account::Colored, 0..1).remove(0).script;
        self.chain.fund_confirmed(&script, Sat::literal(3_000)).expect("the fake pays");
        self.gateway.at_tip().await;
        self.engine.learn_coins(keys, 1).await.expect("it takes the coin in");
        let amounts = vec![Amount::from_asset_units(1_000).expect("an amount")];
        let new = NewAsset { ticker: "GOLD".to_owned(), name: "Gold of a test".to_owned(), precision: 0, amounts };
        let asset = self.engine.issue(keys, new).await.expect("it issues");
        (owner, vec![asset])
    }

    async fn opened(&self, sealed: &[u8], password: &str, keys: &WalletKeys) -> Option<Vec<Asset>> {
        let elsewhere = engine_on(&self.chain);
        if !elsewhere.restore(keys, sealed, password) {
            return None;
        }
        Some(elsewhere.assets(keys).await.expect("assets"))
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

async fn begun(owner: &Caller) -> Value {
    owner.post(BEGIN, json!({})).await.ok()
}

fn end(signed: &str) -> Value {
    json!({ "signed_psbt": signed, "password": PASSWORD })
}

async fn a_key_stands_for_one_export(scene: &Scene) {
    let (owner, _assets) = scene.issuer(1).await;
    let ask = async |body: Value, key: &str| owner.call(Call::post(BEGIN, &body).idempotent(key)).await;
    let first = ask(json!({}), "leaving").await.ok();
    let before = scene.gateway.row_counts().await;
    assert_eq!(ask(json!({}), "leaving").await.ok(), first);
    ask(json!({ "expires_in_seconds": 900 }), "leaving").await.refused(422, "idempotency_mismatch");
    assert_eq!(scene.gateway.row_counts().await, before);
    assert_ne!(ask(json!({}), "leaving again").await.ok()["export_id"], first["export_id"]);
    let signed = owner.wallet.export(&text(&first, "psbt"));
    assert_eq!(owner.post(END, end(&signed)).await.status, 200);
    assert_eq!(ask(json!({}), "leaving").await.ok(), first, "what was answered is answered the same");
}

async fn the_owner_leaves_with_everything(scene: &Scene) {
    let (owner, assets) = scene.issuer(1).await;
    let begun = begun(&owner).await;
    let (message, psbt) = (text(&begun, "message"), text(&begun, "psbt"));
    let id = owner.wallet.keys.id();
    let export = text(&begun, "export_id").replace('-', "");
    for line in ["Sluice RGB state export v1".to_owned(), format!("wallet: {id}"), format!("export: {export}")] {
        assert!(message.split('\n').any(|one| one == line), "{message}");
    }
    assert!(message.ends_with(&format!("expires: {}", text(&begun, "expires_at"))), "{message}");
    let signed = owner.wallet.export(&psbt);
    let exported = owner.post(END, end(&signed)).await;
    assert_eq!((exported.status, exported.header("content-type")), (200, Some("application/octet-stream")));
    assert_eq!(exported.header("cache-control"), Some("no-store"));
    assert!(!exported.text.contains("GOLD"), "it is not sealed");
    assert_eq!(scene.opened(&exported.bytes, PASSWORD, &owner.wallet.keys).await, Some(assets));
    assert_eq!(scene.opened(&exported.bytes, "a password of others", &owner.wallet.keys).await, None);
    let again = owner.post(END, end(&signed)).await.refused(409, "request_expired");
    assert!(text(&again, "detail").contains("good for one"), "{again}");
    let events = owner.until("/events?limit=500", |page| page.to_string().contains("assets.exported")).await;
    assert!(!events.to_string().contains(PASSWORD));
    // Another consent is another signature.
    let signed = owner.wallet.export(&text(&self::begun(&owner).await, "psbt"));
    assert_eq!(owner.post(END, end(&signed)).await.status, 200);
}

async fn nobody_else_does(scene: &Scene) {
    let ((owner, _), (other, _)) = (scene.issuer(1).await, scene.issuer(2).await);
    let (mine, theirs) = (text(&begun(&owner).await, "psbt"), text(&begun(&other).await, "psbt"));
    let signed = owner.wallet.export(&mine);
    // A stranger who has seen the signature, and one who signs for himself.
    other.post(END, end(&signed)).await.refused(404, "psbt_unknown");
    owner.post(END, end(&other.wallet.export(&theirs))).await.refused(404, "psbt_unknown");
    owner.post(END, end(&mine)).await.refused(400, "psbt_not_signed");
    owner.post(END, end("nothing")).await.refused(400, "invalid_psbt");
    // The signature of another key, and that of another export.
    let another = owner.wallet.export(&text(&begun(&owner).await, "psbt"));
    for witness_of in [other.wallet.export(&theirs), another] {
        let mut forged = Psbt::from_str(&mine).expect("a PSBT");
        let from = Psbt::from_str(&witness_of).expect("a PSBT");
        forged.inputs[0].final_script_witness.clone_from(&from.inputs[0].final_script_witness);
        owner.post(END, end(&forged.to_string())).await.refused(400, "invalid_signature");
    }
    for password in ["", "elevenchars", &"x".repeat(257)] {
        let refused = owner.post(END, json!({ "signed_psbt": signed, "password": password })).await;
        assert_eq!(refused.refused(400, "invalid_request")["field"], "password");
        assert!(password.is_empty() || !refused.text.contains(password), "{refused}");
    }
    let too_short = Call::post(BEGIN, &json!({ "expires_in_seconds": 1 }));
    assert_eq!(owner.call(too_short).await.refused(400, "invalid_request")["field"], "expires_in_seconds");
    // Nothing of this has used the signature up.
    assert_eq!(owner.post(END, end(&signed)).await.status, 200);
}
