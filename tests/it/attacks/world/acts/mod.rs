//! The acts, each by its name in docs/THREATS.md. An act answers whether it was carried out: what the gateway died of is tried again.

mod payer;
mod stranger;
mod tenant;

use std::pin::Pin;

use serde_json::json;

use super::World;
use crate::harness::process::{Answer, Call};

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
