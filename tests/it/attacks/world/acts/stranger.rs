//! What anybody does who has no key, and what the chain does.

use bitcoin::hashes::Hash as _;
use serde_json::json;
use sluice::money::Sat;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::refused;
use crate::attacks::world::{GUESSES_A_MINUTE, World};
use crate::harness::process::{Answer, Call};
use crate::harness::rig::{parse_address, stranger};

const DUST: Sat = Sat::literal(1_000);
/// The proxy's code for a recipient that is none.
const NO_RECIPIENT: i64 = -202;
const NO_SUCH_METHOD: i64 = -32_601;

impl World {
    pub(super) async fn a_stranger_calls_through_a_proxy(&mut self) -> bool {
        let call = Call::get("/lightning/balance", &self.pair.sides[0].client).header("x-forwarded-for", "203.0.113.9");
        let Some(answer) = self.ask(&call).await else { return false };
        refused(&answer, &["not_local"])
    }

    pub(super) async fn a_web_page_calls_for_its_reader(&mut self) -> bool {
        for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
            let call = Call::post("/lightning/onchain-receive", &self.pair.sides[0].client).header(name, value);
            let Some(answer) = self.ask(&call).await else { return false };
            if !refused(&answer, &["not_local"]) {
                return false;
            }
        }
        true
    }

    pub(super) async fn a_stranger_guesses_keys(&mut self) -> bool {
        for _ in 0..=GUESSES_A_MINUTE {
            let number = self.next();
            let key = format!("sluice_{number:012x}_{number:064x}");
            let pay = Call::post("/lightning/pay-invoice", &self.pair.sides[0].client).bearer(&key);
            let pay = pay.header("x-forwarded-for", "198.51.100.7");
            let Some(answer) = self.ask(&pay.json(json!({ "destination": "lnbcrt1" }))).await else { return false };
            if answer.body["error"] == "rate_limited" {
                return true;
            }
            refused(&answer, &["unauthorized"]);
        }
        false
    }

    pub(super) async fn a_stranger_brings_rubbish_to_the_proxy(&mut self) -> bool {
        for (method, params, code) in [
            ("ack.get", json!({ "recipient_id": "a\nb" }), NO_RECIPIENT),
            ("consignment.get", json!({ "recipient_id": "x".repeat(256) }), NO_RECIPIENT),
            ("consignment.delete", json!({ "recipient_id": "x" }), NO_SUCH_METHOD),
            ("media.get", json!({ "attachment_id": "x" }), NO_SUCH_METHOD),
        ] {
            let call = Call::post("/json-rpc", &self.tenant);
            let call = call.json(json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }));
            let Some(answer) = self.ask(&call).await else { return false };
            assert_eq!(answer.body["error"]["code"], code, "{method}: {answer:?}");
        }
        true
    }

    pub(super) async fn a_stranger_never_ends_a_call(&mut self) -> bool {
        let Some(port) = self.pair.sides[0].gateway.api_port() else { return false };
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
        let head = b"POST /lightning/create-invoice HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
        if stream.write_all(head).await.is_err() {
            return false;
        }
        self.slow.push(stream);
        // Others are answered meanwhile.
        self.ask(&Call::get("/lightning/balance", &self.tenant)).await.is_some_and(|answer| answer.is_ok())
    }

    pub(super) async fn a_stranger_pays_and_takes_it_back(&mut self) -> bool {
        let ask = Call::get("/lightning/onchain-receive", &self.pair.sides[0].client);
        let Some(answer) = self.ask(&ask).await.filter(Answer::is_ok) else { return false };
        let paid = self.pair.node.unsent_payment(&parse_address(answer.text("btc_address")), DUST).await;
        let txid = paid.compute_txid().to_string();
        let hex = bitcoin::consensus::encode::serialize_hex(&paid);
        self.pair.node.rpc("sendrawtransaction", json!([hex])).await;
        let deposits = Call::get("/deposits", &self.pair.sides[0].client);
        let is = |answer: &Answer, state: &str| {
            let all = answer.body["deposits"].as_array();
            all.is_some_and(|all| all.iter().any(|one| one["txid"] == txid.as_str() && one["state"] == state))
        };
        self.persist(&deposits, |answer| is(answer, "seen")).await;
        let taken_back = self.pair.node.rival(&paid, &stranger().script_pubkey()).await;
        self.pair.node.mine_with(&[taken_back]).await;
        self.persist(&deposits, |answer| is(answer, "replaced")).await;
        true
    }

    pub(super) async fn the_chain_changes_its_mind(&mut self) -> bool {
        self.pair.node.mine(1).await;
        self.followed().await;
        let node = &self.pair.node;
        let tip = node.tip().await.height;
        node.invalidate_block(node.block_hash(tip).await).await;
        // To somebody else than before: the same block again would be the one that was just refused.
        node.mine_to(2, &bitcoin::Address::p2wsh(&other_script(tip), bitcoin::Network::Regtest)).await;
        self.followed().await;
        true
    }
}

fn other_script(height: u32) -> bitcoin::ScriptBuf {
    let hash = bitcoin::hashes::sha256::Hash::hash(&height.to_be_bytes());
    bitcoin::script::Builder::new().push_slice(hash.to_byte_array()).into_script()
}
