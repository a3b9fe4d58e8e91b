//! What a wallet's owner does with the gateway's books: payments, keys and calls.

use std::sync::Arc;

use rand::Rng;
use serde_json::json;
use sluice::clock::Clock;
use sluice::domain::lightning::PaymentHash;
use sluice::money::Amount;

use super::{refused, signed};
use crate::attacks::asset_invoices::for_an_asset;
use crate::attacks::world::{KEYS_LIMIT, OPEN_AT_MOST, REGISTRATIONS_A_MINUTE, World};
use crate::harness::lightning::{forged_invoice, msat, sat};
use crate::harness::process::{Answer, Call};
use crate::harness::rig::Client;

const BEGIN: &str = "/lightning/pay-invoice-begin";
const END: &str = "/lightning/pay-invoice-end";
const AT_ONCE: usize = 4;

impl World {
    pub(super) async fn a_tenant_pays_a_forged_text(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(500_000).await else { return false };
        let hash: PaymentHash = bill.text("payment_hash").parse().expect("a hash");
        let amounts: [Option<Amount>; 3] = [Some(msat(1)), Some(sat(500_000)), None];
        let amount = amounts[self.dice.random_range(0..amounts.len())];
        let mut body = json!({ "invoice": forged_invoice(hash, amount, Clock::System.now()) });
        if amount.is_none() {
            body["amount_sats"] = json!(1);
        }
        let begin = Call::post(BEGIN, &self.tenant).json(body);
        let Some(answer) = self.ask(&begin).await else { return false };
        refused(&answer, &["invalid_invoice"])
    }

    pub(super) async fn a_tenant_pays_less_than_an_invoice_asks_for(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(700).await else { return false };
        let begin = Call::post(BEGIN, &self.tenant).json(json!({ "invoice": bill.text("invoice"), "amount_sats": 1 }));
        let Some(answer) = self.ask(&begin).await else { return false };
        refused(&answer, &["invalid_request"])
    }

    pub(super) async fn a_tenant_pays_an_invoice_for_an_asset(&mut self) -> bool {
        let text = for_an_asset(Clock::System.now());
        let begin = Call::post(BEGIN, &self.tenant).json(json!({ "invoice": text }));
        let Some(answer) = self.ask(&begin).await else { return false };
        refused(&answer, &["asset_invoice"])
    }

    pub(super) async fn a_tenant_squats_an_invoice(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(300).await else { return false };
        let tenant = Arc::clone(&self.tenant);
        let squat = json!({ "invoice": bill.text("invoice") });
        let Some(begun) = self.begun(&tenant, BEGIN, squat).await else { return false };
        // Who really pays it is not kept out.
        self.payer_pays(bill.text("invoice")).await;
        self.revive().await;
        let read = Call::get(format!("/lightning/receive-request/{}", bill.text("id")), &self.pair.sides[0].client);
        self.persist(&read, |answer| answer.body["status"] == "SETTLED").await;
        self.cancelled(&tenant, &begun).await
    }

    pub(super) async fn a_tenant_ends_a_payment_many_times_at_once(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(10).await else { return false };
        let tenant = Arc::clone(&self.tenant);
        let pay = json!({ "invoice": bill.text("invoice"), "max_fee_sats": 0 });
        let Some(begun) = self.begun(&tenant, BEGIN, pay).await else { return false };
        let end = Call::post(END, &tenant).json(signed(&tenant, &begun));
        let gateway = &self.pair.sides[0].gateway;
        let answers = futures::future::join_all((0..AT_ONCE).map(|_| gateway.call(&end))).await;
        self.revive().await;
        let ended: Vec<Answer> = answers.into_iter().flatten().collect();
        let id = begun.request_id.as_deref().expect("begin names its request");
        let all_the_same = ended.iter().all(|answer| answer.is_ok() && answer.text("id") == id);
        if ended.len() < AT_ONCE || !all_the_same {
            return false;
        }
        // One payment, which is in the books once: it says what it has cost, and the payee was paid.
        let read = Call::get(format!("/lightning/receive-request/{}", bill.text("id")), &self.pair.sides[0].client);
        self.persist(&read, |answer| answer.body["status"] == "SETTLED").await;
        let list = format!("/lightning/listpayments?direction=out&payment_hash={}", bill.text("payment_hash"));
        let listed = self.persist(&Call::get(list, &tenant), Answer::is_ok).await;
        listed.body["payments"].as_array().is_some_and(|rows| rows.len() == 1)
    }

    pub(super) async fn two_tenants_consent_to_one_invoice_at_once(&mut self) -> bool {
        let invoice = self.others_invoice(20).await;
        let wallets = [Arc::clone(&self.tenant), Arc::clone(&self.accomplice)];
        let mut ends = Vec::new();
        for wallet in &wallets {
            let pay = json!({ "invoice": invoice, "max_fee_sats": 10 });
            let Some(begun) = self.begun(wallet, BEGIN, pay).await else { return false };
            let id = begun.request_id.clone().expect("begin names its request");
            ends.push((wallet, id, Call::post(END, wallet).json(signed(wallet, &begun))));
        }
        let gateway = &self.pair.sides[0].gateway;
        let answers = futures::future::join_all(ends.iter().map(|(_, _, end)| gateway.call(end))).await;
        self.revive().await;
        let mut refusals = 0;
        let mut paid = 0;
        for ((wallet, id, end), answer) in ends.iter().zip(answers) {
            match answer {
                Ok(answer) if answer.is_ok() => {}
                Ok(answer) => {
                    refusals += usize::from(refused(&answer, &["payment_in_progress", "already_paid"]));
                    continue;
                }
                // Nobody knows whether it was taken: it is asked again, as a client does.
                Err(_died) => {
                    let settled = ["payment_in_progress", "already_paid", "request_expired"];
                    self.persist(end, |answer| {
                        answer.is_ok() || settled.iter().any(|code| answer.body["error"] == *code)
                    })
                    .await;
                }
            }
            let read = Call::get(format!("/lightning/send-request/{id}"), wallet);
            let sent = self.persist(&read, |answer| answer.is_ok() && answer.body["status"] != "PENDING").await;
            paid += usize::from(sent.body["status"] == "SUCCEEDED");
        }
        assert!(paid <= 1, "one invoice was paid twice");
        paid == 1 && refusals == 1
    }

    pub(super) async fn a_tenant_asks_for_what_is_anothers(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(20).await else { return false };
        let id = bill.text("id").to_owned();
        let Some(answer) = self.ask(&Call::get(format!("/requests/{id}"), &self.tenant)).await else { return false };
        if !refused(&answer, &["not_found"]) {
            return false;
        }
        // By its contract this one answers null for what is not there.
        let read = Call::get(format!("/lightning/receive-request/{id}"), &self.tenant);
        let Some(answer) = self.ask(&read).await else { return false };
        assert!(!answer.is_ok() || answer.body.is_null(), "another wallet's request was told: {answer:?}");
        if !answer.is_ok() {
            return false;
        }
        let cancel = Call::post(format!("/requests/{id}/cancel"), &self.tenant);
        let Some(answer) = self.ask(&cancel).await else { return false };
        refused(&answer, &["not_found"])
    }

    pub(super) async fn a_tenant_ends_what_another_has_begun(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(30).await else { return false };
        let tenant = Arc::clone(&self.tenant);
        let pay = json!({ "invoice": bill.text("invoice") });
        let Some(begun) = self.begun(&tenant, BEGIN, pay).await else { return false };
        let unsigned = json!({ "signed_psbt": begun.body });
        for (call, code) in [
            (Call::post(END, &self.pair.sides[0].client).json(signed(&tenant, &begun)), "psbt_unknown"),
            (Call::post(END, &tenant).json(unsigned), "psbt_not_signed"),
        ] {
            let Some(answer) = self.ask(&call).await else { return false };
            if !refused(&answer, &[code]) {
                return false;
            }
        }
        self.cancelled(&tenant, &begun).await
    }

    pub(super) async fn a_tenant_calls_with_keys_of_two_wallets(&mut self) -> bool {
        let victim = self.pair.sides[0].client.signer.wallet_xpubs();
        let (van, col) = (victim.xpub_van.to_string(), victim.xpub_col.to_string());
        for (name, value) in [("xpub-van", &van), ("xpub-col", &col)] {
            for (path, code) in [
                ("/wallet/register", "keychain_in_use"),
                ("/wallet/btcbalance", "wallet_not_registered"),
                ("/lightning/onchain-receive", "wallet_not_registered"),
            ] {
                let call = Call::post(path, &self.tenant).replaced(name, value);
                let Some(answer) = self.ask(&call).await else { return false };
                if !refused(&answer, &[code]) {
                    return false;
                }
            }
        }
        let other_mark = Call::post("/wallet/btcbalance", &self.pair.sides[0].client)
            .replaced("master-fingerprint", &self.tenant.signer.wallet_xpubs().master_fingerprint.to_string());
        let Some(answer) = self.ask(&other_mark).await else { return false };
        refused(&answer, &["wallet_not_registered"])
    }

    pub(super) async fn a_tenant_uses_an_idempotency_key_twice_at_once(&mut self) -> bool {
        let key = format!("raced-{}", self.next());
        let order = |sats: u64| {
            let order = Call::post("/lightning/create-invoice", &self.tenant).key(key.clone());
            order.json(json!({ "amount_sats": sats, "expiry_seconds": 60 }))
        };
        let (same, other) = (order(40), order(41));
        let gateway = &self.pair.sides[0].gateway;
        let answers = futures::future::join_all((0..AT_ONCE).map(|_| gateway.call(&same))).await;
        self.revive().await;
        let made: Vec<Answer> = answers.into_iter().flatten().filter(Answer::is_ok).collect();
        let Some(first) = made.first().filter(|_| made.len() == AT_ONCE) else { return false };
        for answer in &made {
            assert_eq!(answer.text("invoice"), first.text("invoice"), "one key has made two invoices");
        }
        let Some(answer) = self.ask(&other).await else { return false };
        refused(&answer, &["idempotency_mismatch"])
    }

    pub(super) async fn a_tenant_begins_without_end(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(1).await else { return false };
        let wallet = Arc::clone(&self.accomplice);
        let begin = Call::post(BEGIN, &wallet);
        let begin = begin.json(json!({ "invoice": bill.text("invoice"), "max_fee_sats": 0, "expires_in_seconds": 60 }));
        let mut open = Vec::new();
        let last = loop {
            let Some(answer) = self.ask(&begin).await else { return false };
            if !answer.is_ok() {
                break answer;
            }
            open.push(answer);
            assert!(open.len() <= usize::try_from(OPEN_AT_MOST).expect("few"), "more is open than there may be");
        };
        // What was begun is free again when its owner says so.
        for begun in &open {
            if !self.cancelled(&wallet, begun).await {
                return false;
            }
        }
        refused(&last, &["too_many_open_requests"])
    }

    pub(super) async fn a_tenant_registers_without_end(&mut self) -> bool {
        for _ in 0..=REGISTRATIONS_A_MINUTE {
            let number = self.next();
            let fresh = Client::number(u32::try_from(10_000 + number).expect("few"));
            let Some(answer) = self.ask(&Call::post("/wallet/register", &fresh)).await else { return false };
            if !answer.is_ok() {
                return answer.body["error"] == "rate_limited";
            }
        }
        // Some of it is given back while time passes: as many again would take a minute.
        false
    }

    pub(super) async fn a_tenant_spends_beyond_the_limit_of_its_key(&mut self) -> bool {
        let pay = |destination: String| {
            let call = Call::post("/lightning/pay-invoice", &self.tenant).bearer(&self.spender);
            call.json(json!({ "destination": destination, "max_fee_sats": 1 }))
        };
        let beyond = pay(self.others_invoice(KEYS_LIMIT + 1).await);
        let within = pay(self.others_invoice(5).await);
        let Some(answer) = self.ask(&beyond).await else { return false };
        if !refused(&answer, &["payment_above_limit", "spending_limit_exceeded"]) {
            return false;
        }
        let Some(answer) = self.ask(&within).await else { return false };
        if !answer.is_ok() {
            refused(&answer, &["no_liquidity"]);
            return false;
        }
        let read = Call::get(format!("/lightning/send-request/{}", answer.text("id")), &self.tenant);
        let sent = self.persist(&read, |answer| answer.is_ok() && answer.body["status"] != "PENDING").await;
        sent.body["status"] == "SUCCEEDED"
    }
}
