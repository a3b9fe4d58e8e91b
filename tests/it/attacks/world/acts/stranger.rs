//! What anybody does who has no key, and what the chain does.

use bitcoin::hashes::Hash as _;
use serde_json::json;
use sluice::money::Sat;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::refused;
use crate::attacks::world::{World, eventually};
use crate::harness::process::{Answer, Call};
use crate::harness::rig::parse_address;

impl World {
    pub(super) async fn a_stranger_calls_through_a_proxy(&mut self) -> bool {
        let call = Call::get("/lightning/balance", &self.pair.sides[0].client).header("x-forwarded-for", "203.0.113.9");
        let Some(answer) = self.ask(&call).await else { return false };
        refused(&answer, &["not_local"])
    }

    pub(super) async fn a_stranger_brings_rubbish_to_the_proxy(&mut self) -> bool {
        let call = Call::post("/json-rpc", &self.tenant).json(
            json!({ "jsonrpc": "2.0", "id": 1, "method": "consignment.post", "params": { "recipient_id": "x" } }),
        );
        self.ask(&call).await.is_some_and(|answer| answer.status == 404 || answer.body.get("error").is_some())
    }

    pub(super) async fn a_stranger_never_ends_a_call(&mut self) -> bool {
        let Some(port) = self.pair.sides[0].gateway.api_port() else { return false };
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
        let head = b"POST /lightning/create-invoice HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
        if stream.write_all(head).await.is_err() {
            return false;
        }
        self.slow.push(stream);
        true
    }

    pub(super) async fn a_stranger_pays_dust_and_takes_it_back(&mut self) -> bool {
        let ask = Call::get("/lightning/onchain-receive", &self.pair.sides[0].client);
        let Some(answer) = self.ask(&ask).await.filter(Answer::is_ok) else { return false };
        let to = parse_address(answer.text("btc_address"));
        let txid = self.pair.node.pay(&to, Sat::literal(1_000)).await;
        // What is not mined is no money of anybody's: it is replaced by a payment to somebody else, where the wallet allows it.
        drop(self.pair.node.try_rpc("bumpfee", json!([txid])).await);
        let node = &self.pair.node;
        eventually("the mempool has it", async || {
            node.rpc("getrawmempool", json!([])).await.as_array().is_some_and(|all| !all.is_empty())
        })
        .await;
        true
    }

    pub(super) async fn the_chain_changes_its_mind(&mut self) -> bool {
        let node = &self.pair.node;
        node.mine(1).await;
        let tip = node.tip().await.height;
        node.invalidate_block(node.block_hash(tip).await).await;
        // To somebody else than before: the same block again would be the one that was just refused.
        node.mine_to(2, &bitcoin::Address::p2wsh(&other_script(tip), bitcoin::Network::Regtest)).await;
        true
    }
}

fn other_script(height: u32) -> bitcoin::ScriptBuf {
    let hash = bitcoin::hashes::sha256::Hash::hash(&height.to_be_bytes());
    bitcoin::script::Builder::new().push_slice(hash.to_byte_array()).into_script()
}
