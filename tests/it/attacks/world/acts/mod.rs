//! The acts, each by its name in docs/THREATS.md. An act answers whether it was carried out: refused as it has to be, or done with the effect
//! that it has to have. What the gateway died of is tried again.

mod coins;
mod payer;
mod stranger;
mod tenant;
pub(super) mod withdrawals;

use std::pin::Pin;
use std::time::Instant;

use serde_json::{Value, json};

use super::{DEADLINE, PAYMENT_DEADLINE, POLL, World};
use crate::harness::process::{Answer, Call};
use crate::harness::rig::Client;

/// Long enough to sign, and short enough that what a death leaves begun is soon free again.
const SIGNED_WITHIN: u64 = 60;

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
    a_tenant_pays_less_than_an_invoice_asks_for,
    a_tenant_pays_an_invoice_for_an_asset,
    a_tenant_squats_an_invoice,
    a_tenant_ends_a_payment_many_times_at_once,
    two_tenants_consent_to_one_invoice_at_once,
    a_tenant_asks_for_what_is_anothers,
    a_tenant_ends_what_another_has_begun,
    a_tenant_calls_with_keys_of_two_wallets,
    a_tenant_uses_an_idempotency_key_twice_at_once,
    a_tenant_begins_without_end,
    a_tenant_registers_without_end,
    a_tenant_spends_beyond_the_limit_of_its_key,
    a_tenant_replaces_what_it_has_sent,
    a_tenant_signs_coins_that_it_has_spent_elsewhere,
    a_tenant_sends_out_what_it_has_taken_back,
    a_tenant_brings_psbts_that_are_not_its_own,
    a_tenant_pays_itself_while_it_is_searched,
    a_tenant_settles_and_the_chain_changes_its_mind,
    a_tenant_cancels_a_withdrawal_that_goes_out,
    a_tenant_sets_money_aside_and_takes_it_back,
    a_payer_pays_an_invoice_twice,
    a_payer_pays_in_the_last_moment,
    a_payer_pays_an_address_that_is_over,
    a_payer_is_killed_while_it_pays,
    a_peer_offers_a_channel_that_is_too_small,
    a_stranger_calls_through_a_proxy,
    a_stranger_guesses_keys,
    a_web_page_calls_for_its_reader,
    a_stranger_brings_rubbish_to_the_proxy,
    a_stranger_never_ends_a_call,
    a_stranger_pays_and_takes_it_back,
    the_chain_changes_its_mind,
];

/// What may never be done is refused by one of these codes; false when the gateway could only say that it can't now.
fn refused(answer: &Answer, codes: &[&str]) -> bool {
    let code = answer.body["error"].as_str().unwrap_or_default();
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

    /// An invoice of the other gateway's wallet.
    async fn others_invoice(&self, sats: u64) -> String {
        super::honest::invoice(&self.pair.sides[1], sats).await.text("invoice").to_owned()
    }

    async fn begun(&mut self, wallet: &Client, path: &str, mut body: Value) -> Option<Answer> {
        body["expires_in_seconds"] = json!(SIGNED_WITHIN);
        self.ask(&Call::post(path, wallet).json(body)).await.filter(Answer::is_ok)
    }

    async fn cancelled(&mut self, wallet: &Client, begun: &Answer) -> bool {
        let id = begun.request_id.as_deref().expect("begin names its request");
        let cancel = Call::post(format!("/requests/{id}/cancel"), wallet);
        self.ask(&cancel).await.is_some_and(|answer| answer.is_ok())
    }

    /// Asks until it holds, over deaths.
    async fn persist(&mut self, call: &Call, holds: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + PAYMENT_DEADLINE;
        loop {
            let last = self.ask(call).await;
            if let Some(answer) = last.as_ref().filter(|answer| holds(answer)) {
                return answer.clone();
            }
            let log = || self.pair.sides[0].gateway.log();
            assert!(Instant::now() < deadline, "{call:?}: not in time, last {last:?}\n{}", log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// The same while blocks come.
    async fn persist_mining(&mut self, call: &Call, holds: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let last = self.ask(call).await;
            if let Some(answer) = last.as_ref().filter(|answer| holds(answer)) {
                return answer.clone();
            }
            assert!(Instant::now() < deadline, "{call:?}: not in time, last {last:?}");
            self.pair.node.mine(1).await;
            self.followed().await;
        }
    }

    /// Waits until the gateway has taken in the node's tip, over deaths.
    async fn followed(&mut self) {
        let tip = self.pair.node.tip().await.hash.to_string();
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.revive().await;
            let ready = self.pair.sides[0].gateway.ready().await;
            if ready.as_ref().is_ok_and(|answer| answer.body["rails"]["chain"]["cursor"]["hash"] == tip.as_str()) {
                return;
            }
            assert!(Instant::now() < deadline, "it does not follow: {ready:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

fn signed(wallet: &Client, begun: &Answer) -> Value {
    json!({ "signed_psbt": wallet.sign(begun.body.as_str().expect("a PSBT")) })
}
