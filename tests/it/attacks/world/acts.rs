//! The acts, each by its name in docs/THREATS.md. An act answers whether it was carried out: what the gateway died of is tried again.

use std::pin::Pin;

use bitcoin::hashes::Hash as _;
use rand::Rng;
use serde_json::json;
use sluice::domain::lightning::PaymentHash;
use sluice::money::{Amount, Sat};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{World, eventually, offchain};
use crate::harness::lightning::{forged_invoice, msat, sat};
use crate::harness::process::{Answer, Call};
use crate::harness::rig::{parse_address, stranger};

type Played<'a> = Pin<Box<dyn Future<Output = bool> + 'a>>;

pub struct Act {
    pub name: &'static str,
    pub play: for<'a> fn(&'a mut World) -> Played<'a>,
}

macro_rules! acts {
    ($($name:ident),* $(,)?) => {
        pub const ACTS: &[Act] = &[$(Act { name: stringify!($name), play: |world| Box::pin(world.$name()) }),*];
    };
}

acts![
    a_tenant_pays_a_forged_text,
    a_tenant_squats_an_invoice,
    a_tenant_ends_a_payment_many_times_at_once,
    a_tenant_cancels_a_withdrawal_that_goes_out,
    a_tenant_asks_for_what_is_anothers,
    a_tenant_ends_what_another_has_begun,
    a_tenant_sets_coins_aside_and_walks_away,
    a_payer_pays_an_invoice_twice,
    a_payer_is_killed_while_it_pays,
    a_stranger_calls_through_a_proxy,
    a_stranger_brings_rubbish_to_the_proxy,
    a_stranger_never_ends_a_call,
    a_stranger_pays_dust_and_takes_it_back,
    the_chain_changes_its_mind,
];

/// What a tenant may never do is refused, or the gateway has died before it could say so.
fn refused(answer: &Answer, codes: &[&str]) -> bool {
    let code = answer.body["error"].as_str().unwrap_or_default();
    // A gateway that has just begun may not be able to say more than that it can't now.
    let not_now = ["lightning_not_ready", "chain_unavailable", "store_unavailable", "timeout", "rate_limited"];
    assert!(codes.contains(&code) || not_now.contains(&code), "{answer:?}");
    codes.contains(&code)
}

impl World {
    /// An invoice of the honest wallet, which its payers see.
    async fn victims_invoice(&mut self, sats: u64) -> Option<Answer> {
        let order = Call::post("/lightning/create-invoice", &self.pair.sides[0].client);
        let key = format!("bill-{}", self.next());
        self.ask(&order.key(key).json(json!({ "amount_sats": sats }))).await.filter(Answer::is_ok)
    }

    async fn tenants_psbt(&mut self, path: &str, body: serde_json::Value) -> Option<Answer> {
        let begin = Call::post(path, &self.tenant).json(body);
        self.ask(&begin).await.filter(Answer::is_ok)
    }

    fn tenant_ends(&self, path: &str, begun: &Answer) -> Call {
        let signed = self.tenant.sign(begun.body.as_str().expect("a PSBT"));
        Call::post(path, &self.tenant).json(json!({ "signed_psbt": signed }))
    }

    async fn a_tenant_pays_a_forged_text(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(500_000).await else { return false };
        let hash: PaymentHash = bill.text("payment_hash").parse().expect("a hash");
        let amounts: [Option<Amount>; 3] = [Some(msat(1)), Some(sat(500_000)), None];
        let amount = amounts[self.dice.random_range(0..amounts.len())];
        let text = forged_invoice(hash, amount, sluice::clock::Clock::System.now());
        let mut body = json!({ "invoice": text });
        if amount.is_none() {
            body["amount_sats"] = json!(1);
        }
        let begin = Call::post("/lightning/pay-invoice-begin", &self.tenant).json(body);
        let Some(answer) = self.ask(&begin).await else { return false };
        refused(&answer, &["invalid_invoice"])
    }

    async fn a_tenant_squats_an_invoice(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(300).await else { return false };
        let squat = json!({ "invoice": bill.text("invoice"), "expires_in_seconds": 3_600 });
        if self.tenants_psbt("/lightning/pay-invoice-begin", squat).await.is_none() {
            return false;
        }
        // Who really pays it is not kept out.
        self.payer_pays(bill.text("invoice")).await;
        self.revive().await;
        let read = Call::get(format!("/lightning/receive-request/{}", bill.text("id")), &self.pair.sides[0].client);
        self.persist(&read, |answer| answer.body["status"] == "SETTLED").await;
        true
    }

    async fn a_tenant_ends_a_payment_many_times_at_once(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(10).await else { return false };
        let pay = json!({ "invoice": bill.text("invoice") });
        let Some(begun) = self.tenants_psbt("/lightning/pay-invoice-begin", pay).await else { return false };
        let end = self.tenant_ends("/lightning/pay-invoice-end", &begun);
        let gateway = &self.pair.sides[0].gateway;
        let answers = futures::future::join_all((0..4).map(|_| gateway.call(&end))).await;
        let once = answers.into_iter().flatten().filter(Answer::is_ok).count();
        self.revive().await;
        once > 0
    }

    async fn a_tenant_cancels_a_withdrawal_that_goes_out(&mut self) -> bool {
        let wanted = json!({
            "address_or_rgbinvoice": stranger().to_string(), "amount_sats": 1_000, "fee_rate": 1, "source": "offchain",
        });
        let Some(begun) = self.tenants_psbt("/lightning/onchain-send-begin", wanted).await else {
            return self.is_poor().await;
        };
        let Some(id) = begun.request_id.clone() else { return false };
        let end = self.tenant_ends("/lightning/onchain-send-end", &begun);
        let cancel = Call::post(format!("/onchain-send/{id}/cancel"), &self.tenant);
        let gateway = &self.pair.sides[0].gateway;
        let both = futures::future::join_all([&end, &cancel, &end, &cancel].map(|call| gateway.call(call))).await;
        let answered = both.into_iter().flatten().count();
        self.revive().await;
        self.pair.node.mine(1).await;
        answered > 0
    }

    /// Withdrawals cost: in the end the tenant has nothing more to play with, and that is no defence of the gateway.
    async fn is_poor(&mut self) -> bool {
        let read = Call::get("/lightning/balance", &self.tenant);
        self.ask(&read).await.is_some_and(|answer| answer.is_ok() && offchain(&answer) < 10_000_000)
    }

    async fn a_tenant_asks_for_what_is_anothers(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(20).await else { return false };
        let id = bill.text("id").to_owned();
        for path in [format!("/requests/{id}"), format!("/lightning/receive-request/{id}")] {
            let Some(answer) = self.ask(&Call::get(path, &self.tenant)).await else { return false };
            assert!(!answer.is_ok() || answer.body.is_null(), "another wallet's request was told: {answer:?}");
        }
        let cancel = Call::post(format!("/requests/{id}/cancel"), &self.tenant);
        let Some(answer) = self.ask(&cancel).await else { return false };
        refused(&answer, &["not_found", "request_not_found"])
    }

    async fn a_tenant_ends_what_another_has_begun(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(30).await else { return false };
        let pay = json!({ "invoice": bill.text("invoice") });
        let Some(begun) = self.tenants_psbt("/lightning/pay-invoice-begin", pay).await else { return false };
        let (unsigned, signed) =
            (begun.body.as_str().expect("a PSBT"), self.tenant.sign(begun.body.as_str().expect("a PSBT")));
        let path = "/lightning/pay-invoice-end";
        let ends = [
            Call::post(path, &self.pair.sides[0].client).json(json!({ "signed_psbt": signed })),
            Call::post(path, &self.tenant).json(json!({ "signed_psbt": unsigned })),
        ];
        for end in ends {
            let Some(answer) = self.ask(&end).await else { return false };
            assert!(!answer.is_ok(), "it was ended for another wallet, or without a signature: {answer:?}");
        }
        true
    }

    async fn a_tenant_sets_coins_aside_and_walks_away(&mut self) -> bool {
        let wanted = json!({
            "address_or_rgbinvoice": stranger().to_string(), "amount_sats": 1_000, "fee_rate": 2, "source": "offchain",
        });
        let began = self.tenants_psbt("/lightning/onchain-send-begin", wanted).await;
        let Some(id) = began.and_then(|begun| begun.request_id) else { return self.is_poor().await };
        // Its owner may take it back; what is taken back is not held.
        let cancel = Call::post(format!("/requests/{id}/cancel"), &self.tenant);
        self.ask(&cancel).await.is_some_and(|answer| answer.is_ok())
    }

    async fn a_payer_pays_an_invoice_twice(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(50).await else { return false };
        self.payer_pays(bill.text("invoice")).await;
        let payer = &self.pair.sides[1];
        let again =
            Call::post("/lightning/pay-invoice-begin", &payer.client).json(json!({ "invoice": bill.text("invoice") }));
        let answer = payer.gateway.until("an answer", &again, |answer| answer.status < 500).await;
        refused(&answer, &["already_paid"])
    }

    async fn a_payer_is_killed_while_it_pays(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(40).await else { return false };
        let payer = &self.pair.sides[1];
        let begin = Call::post("/lightning/pay-invoice-begin", &payer.client)
            .json(json!({ "invoice": bill.text("invoice"), "max_fee_sats": 10 }));
        let begun = payer.gateway.until("it begins", &begin, Answer::is_ok).await;
        let signed = payer.client.sign(begun.body.as_str().expect("a PSBT"));
        let end = Call::post("/lightning/pay-invoice-end", &payer.client).json(json!({ "signed_psbt": signed }));
        let died = async {
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            payer.gateway.kill();
        };
        // Whether it was answered is the point: either is right.
        drop(tokio::join!(payer.gateway.call(&end), died));
        payer.gateway.restart(None).await;
        let ended = payer.gateway.until("it is consented to", &end, Answer::is_ok).await;
        let read = Call::get(format!("/lightning/send-request/{}", ended.text("id")), &payer.client);
        let deadline = std::time::Instant::now() + super::DEADLINE;
        while self.pair.sides[1].gateway.answer(&read).await.body["status"] == "PENDING" {
            assert!(std::time::Instant::now() < deadline, "the payment does not end");
            self.revive().await;
            tokio::time::sleep(super::POLL).await;
        }
        true
    }

    async fn a_stranger_calls_through_a_proxy(&mut self) -> bool {
        let call = Call::get("/lightning/balance", &self.pair.sides[0].client).header("x-forwarded-for", "203.0.113.9");
        let Some(answer) = self.ask(&call).await else { return false };
        refused(&answer, &["not_local"])
    }

    async fn a_stranger_brings_rubbish_to_the_proxy(&mut self) -> bool {
        let call = Call::post("/json-rpc", &self.tenant).json(
            json!({ "jsonrpc": "2.0", "id": 1, "method": "consignment.post", "params": { "recipient_id": "x" } }),
        );
        self.ask(&call).await.is_some_and(|answer| answer.status == 404 || answer.body.get("error").is_some())
    }

    async fn a_stranger_never_ends_a_call(&mut self) -> bool {
        let Some(port) = self.pair.sides[0].gateway.api_port() else { return false };
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
        let head = b"POST /lightning/create-invoice HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
        if stream.write_all(head).await.is_err() {
            return false;
        }
        self.slow.push(stream);
        true
    }

    async fn a_stranger_pays_dust_and_takes_it_back(&mut self) -> bool {
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

    async fn the_chain_changes_its_mind(&mut self) -> bool {
        let node = &self.pair.node;
        node.mine(1).await;
        let tip = node.tip().await.height;
        node.invalidate_block(node.block_hash(tip).await).await;
        // To somebody else than before: the same block again would be the one that was just refused.
        node.mine_to(2, &bitcoin::Address::p2wsh(&other_script(tip), bitcoin::Network::Regtest)).await;
        true
    }

    /// Asks until it holds, over deaths.
    async fn persist(&mut self, call: &Call, holds: impl Fn(&Answer) -> bool) {
        let deadline = std::time::Instant::now() + super::DEADLINE;
        loop {
            if self.ask(call).await.is_some_and(|answer| holds(&answer)) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{call:?}: not in time");
            tokio::time::sleep(super::POLL).await;
        }
    }
}

fn other_script(height: u32) -> bitcoin::ScriptBuf {
    let hash = bitcoin::hashes::sha256::Hash::hash(&height.to_be_bytes());
    bitcoin::script::Builder::new().push_slice(hash.to_byte_array()).into_script()
}
