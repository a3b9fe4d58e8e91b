//! What a wallet's owner does with a wallet of his own.

use rand::Rng;
use serde_json::json;
use sluice::domain::lightning::PaymentHash;
use sluice::money::Amount;

use super::refused;
use crate::attacks::world::{World, offchain};
use crate::harness::lightning::{forged_invoice, msat, sat};
use crate::harness::process::{Answer, Call};
use crate::harness::rig::stranger;

impl World {
    async fn tenants_psbt(&mut self, path: &str, body: serde_json::Value) -> Option<Answer> {
        let begin = Call::post(path, &self.tenant).json(body);
        self.ask(&begin).await.filter(Answer::is_ok)
    }

    fn tenant_ends(&self, path: &str, begun: &Answer) -> Call {
        let signed = self.tenant.sign(begun.body.as_str().expect("a PSBT"));
        Call::post(path, &self.tenant).json(json!({ "signed_psbt": signed }))
    }

    pub(super) async fn a_tenant_pays_a_forged_text(&mut self) -> bool {
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

    pub(super) async fn a_tenant_squats_an_invoice(&mut self) -> bool {
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

    pub(super) async fn a_tenant_ends_a_payment_many_times_at_once(&mut self) -> bool {
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

    pub(super) async fn a_tenant_cancels_a_withdrawal_that_goes_out(&mut self) -> bool {
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

    pub(super) async fn a_tenant_asks_for_what_is_anothers(&mut self) -> bool {
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

    pub(super) async fn a_tenant_ends_what_another_has_begun(&mut self) -> bool {
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

    pub(super) async fn a_tenant_sets_coins_aside_and_walks_away(&mut self) -> bool {
        let wanted = json!({
            "address_or_rgbinvoice": stranger().to_string(), "amount_sats": 1_000, "fee_rate": 2, "source": "offchain",
        });
        let began = self.tenants_psbt("/lightning/onchain-send-begin", wanted).await;
        let Some(id) = began.and_then(|begun| begun.request_id) else { return self.is_poor().await };
        // Its owner may take it back; what is taken back is not held.
        let cancel = Call::post(format!("/requests/{id}/cancel"), &self.tenant);
        self.ask(&cancel).await.is_some_and(|answer| answer.is_ok())
    }

    /// Withdrawals cost: in the end the tenant has nothing more to play with, and that is no defence of the gateway.
    async fn is_poor(&mut self) -> bool {
        let read = Call::get("/lightning/balance", &self.tenant);
        self.ask(&read).await.is_some_and(|answer| answer.is_ok() && offchain(&answer) < 10_000_000)
    }
}
