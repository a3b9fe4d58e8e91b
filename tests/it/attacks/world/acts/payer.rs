//! What those do who pay, with a node and a wallet of their own.

use serde_json::json;

use super::refused;
use crate::attacks::world::{DEADLINE, POLL, World};
use crate::harness::process::{Answer, Call};

impl World {
    pub(super) async fn a_payer_pays_an_invoice_twice(&mut self) -> bool {
        let Some(bill) = self.victims_invoice(50).await else { return false };
        self.payer_pays(bill.text("invoice")).await;
        let payer = &self.pair.sides[1];
        let again =
            Call::post("/lightning/pay-invoice-begin", &payer.client).json(json!({ "invoice": bill.text("invoice") }));
        let answer = payer.gateway.until("an answer", &again, |answer| answer.status < 500).await;
        refused(&answer, &["already_paid"])
    }

    pub(super) async fn a_payer_is_killed_while_it_pays(&mut self) -> bool {
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
        let deadline = std::time::Instant::now() + DEADLINE;
        while self.pair.sides[1].gateway.answer(&read).await.body["status"] == "PENDING" {
            assert!(std::time::Instant::now() < deadline, "the payment does not end");
            self.revive().await;
            tokio::time::sleep(POLL).await;
        }
        true
    }
}
