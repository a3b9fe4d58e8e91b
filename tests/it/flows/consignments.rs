//! How long consignments are kept, and which of them; and who acknowledges for an invoice of this gateway.

use sluice::flows::Policy;
use sluice::flows::ProxyPolicy;
use sluice::flows::consignments;
use sluice::flows::values::{Acknowledged, Label, Posted};

use crate::harness::consignments::{own_recipient, own_word};
use crate::harness::rig::{self, Rig, on_both};

const A_DAY: u64 = 24 * 60 * 60;

fn label(recipient: &str) -> Label {
    Label { recipient_id: recipient.to_owned(), txid: "ab".repeat(32), vout: None }
}

async fn post(rig: &Rig, recipient: &str, bytes: &[u8]) -> Posted {
    consignments::post(&rig.flows, label(recipient), bytes.to_vec()).await.expect("the store writes")
}

async fn post_media(rig: &Rig, id: &str, bytes: &[u8]) -> Posted {
    consignments::post_media(&rig.flows, id.to_owned(), bytes.to_vec()).await.expect("the store writes")
}

async fn own(rig: &Rig, recipient: &str, client: u32) -> bool {
    own_recipient(&rig.flows, recipient, client).await
}

async fn is_there(rig: &Rig, recipient: &str) -> bool {
    let found = consignments::find(&rig.flows, recipient).await.expect("the store answers");
    let content = consignments::content(&rig.flows, recipient).await.expect("the store answers");
    assert_eq!(found.is_some(), content.is_some());
    found.is_some()
}

async fn used(rig: &Rig) -> u64 {
    consignments::used_by_strangers(&rig.flows).await.expect("the store answers")
}

/// Who says what a recipient says.
#[derive(Clone, Copy)]
enum Speaker {
    Stranger,
    Gateway,
}

async fn acknowledge(rig: &Rig, recipient: &str, ack: bool, speaker: Speaker) -> Acknowledged {
    match speaker {
        Speaker::Gateway => own_word(&rig.flows, recipient, ack).await,
        Speaker::Stranger => {
            let said = consignments::acknowledge(&rig.flows, recipient.to_owned(), ack).await;
            said.expect("the store writes")
        }
    }
}

/// Everything that is due goes, batch by batch; how many batches that took.
async fn sweep(rig: &Rig) -> usize {
    let mut batches = 0;
    while consignments::sweep(&rig.flows).await.expect("the sweep runs") > 0 {
        batches += 1;
    }
    batches
}

on_both!(what_strangers_store_is_forgotten_and_what_is_ours_is_kept, async |rig: Rig| {
    assert!(own(&rig, "ours", 1).await);
    for (recipient, posted) in [("theirs", Posted::Stored), ("ours", Posted::Stored), ("theirs", Posted::Same)] {
        assert_eq!(post(&rig, recipient, b"ten bytes!").await, posted);
    }
    assert_eq!(post_media(&rig, "a picture", b"five!").await, Posted::Stored);
    assert_eq!(used(&rig).await, 15, "what is ours does not count");
    rig.wait(29 * A_DAY).await;
    assert_eq!(post(&rig, "theirs, later", b"x").await, Posted::Stored);
    assert_eq!(sweep(&rig).await, 0);
    rig.wait(A_DAY + 1).await;
    assert_eq!(sweep(&rig).await, 1);
    assert!(!is_there(&rig, "theirs").await && is_there(&rig, "theirs, later").await && is_there(&rig, "ours").await);
    assert_eq!(consignments::media(&rig.flows, "a picture").await.expect("the store answers"), None);
    assert_eq!(used(&rig).await, 1);
    assert_eq!(post(&rig, "theirs", b"another").await, Posted::Stored, "the name is free again");
    rig.audit().await;
});

on_both!(a_sweep_goes_batch_by_batch, async |rig: Rig| {
    for n in 0..45 {
        assert_eq!(post(&rig, &format!("recipient {n}"), b"abc").await, Posted::Stored);
    }
    rig.wait(31 * A_DAY).await;
    assert_eq!(sweep(&rig).await, 3);
    assert_eq!(used(&rig).await, 0);
    rig.audit().await;
});

/// Ten bytes are all that strangers may store.
fn ten_bytes() -> Policy {
    Policy { proxy: ProxyPolicy { max_total_bytes: 10, ..ProxyPolicy::default() }, ..rig::policy() }
}

on_both!(strangers_store_so_much_together_and_take_no_room_from_our_invoices, ten_bytes(), async |rig: Rig| {
    assert_eq!(post(&rig, "one", b"123456").await, Posted::Stored);
    assert_eq!(post(&rig, "two", b"12345").await, Posted::Full);
    assert_eq!(post_media(&rig, "one", b"1234").await, Posted::Stored);
    assert_eq!(post_media(&rig, "two", b"1").await, Posted::Full);
    assert_eq!(post(&rig, "one", b"123456").await, Posted::Same, "what is there needs no room");
    assert!(own(&rig, "ours", 1).await);
    assert_eq!(post(&rig, "ours", &[7; 100]).await, Posted::Stored);
    assert_eq!(used(&rig).await, 10);
    rig.wait(31 * A_DAY).await;
    sweep(&rig).await;
    assert_eq!(post(&rig, "two", b"1234567890").await, Posted::Stored);
    rig.audit().await;
});

on_both!(only_the_gateway_acknowledges_for_its_own_invoices, async |rig: Rig| {
    assert!(own(&rig, "ours", 1).await && own(&rig, "ours", 1).await);
    assert!(!own(&rig, "ours", 2).await, "another wallet's stays that");
    assert_eq!(acknowledge(&rig, "ours", true, Speaker::Stranger).await, Acknowledged::NoConsignment);
    assert_eq!(post(&rig, "ours", b"bytes").await, Posted::Stored);
    for ack in [true, false] {
        assert_eq!(acknowledge(&rig, "ours", ack, Speaker::Stranger).await, Acknowledged::NotTheirs);
    }
    assert_eq!(acknowledge(&rig, "ours", false, Speaker::Gateway).await, Acknowledged::Set);
    assert_eq!(acknowledge(&rig, "ours", false, Speaker::Gateway).await, Acknowledged::Same);
    assert_eq!(acknowledge(&rig, "ours", true, Speaker::Gateway).await, Acknowledged::Differs);
    assert_eq!(acknowledge(&rig, "ours", false, Speaker::Stranger).await, Acknowledged::NotTheirs);
    let refused = consignments::find(&rig.flows, "ours").await.expect("the store answers").expect("it is known");
    assert!(refused.is_dropped && refused.ack == Some(false) && refused.size == 5, "its file is gone");
    assert_eq!(consignments::content(&rig.flows, "ours").await.expect("the store answers"), None);
    assert_eq!(post(&rig, "ours", b"bytes").await, Posted::Same);
    rig.audit().await;
});

on_both!(what_was_brought_before_an_invoice_was_ours_does_not_count, async |rig: Rig| {
    assert_eq!(post(&rig, "guessed", b"bytes").await, Posted::Stored);
    assert_eq!(acknowledge(&rig, "guessed", true, Speaker::Stranger).await, Acknowledged::Set);
    assert_eq!(used(&rig).await, 5);
    assert!(own(&rig, "guessed", 1).await);
    assert!(!is_there(&rig, "guessed").await, "nobody could know the name who was not told");
    assert_eq!(acknowledge(&rig, "guessed", true, Speaker::Stranger).await, Acknowledged::NoConsignment);
    assert_eq!(post(&rig, "guessed", b"true bytes").await, Posted::Stored);
    let found = consignments::find(&rig.flows, "guessed").await.expect("the store answers").expect("it is there");
    assert!(found.ack.is_none() && found.is_own && found.size == 10);
    rig.wait(31 * A_DAY).await;
    sweep(&rig).await;
    assert!(is_there(&rig, "guessed").await);
    assert_eq!(used(&rig).await, 0);
    rig.audit().await;
});

/// As the version before stored it: in the database.
async fn stored_before(rig: &Rig) {
    let created_at = rig.clock.now().millis();
    let txid = "ab".repeat(32);
    rig.sql(&format!(
        "INSERT INTO consignments (recipient_id, txid, vout, hash, size, kept, created_at, content) \
         VALUES ('old', '{txid}', NULL, 'a hash', 3, 0, {created_at}, 'b2xk')"
    ))
    .await;
    rig.sql(&format!(
        "INSERT INTO consignment_media (attachment_id, hash, size, created_at, content) \
         VALUES ('old', 'a hash', 4, {created_at}, 'b2xkIQ==')"
    ))
    .await;
    rig.sql("UPDATE consignment_usage SET bytes = 7 WHERE name = 'strangers'").await;
}

on_both!(what_an_earlier_version_stored_in_the_database_is_served_until_it_is_old, ten_bytes(), async |rig: Rig| {
    stored_before(&rig).await;
    assert_eq!(used(&rig).await, 7);
    let content = consignments::content(&rig.flows, "old").await.expect("the store answers");
    assert_eq!(content.as_deref(), Some("b2xk"));
    assert_eq!(consignments::media(&rig.flows, "old").await.expect("the store answers").as_deref(), Some("b2xkIQ=="));
    assert_eq!(consignments::media_size(&rig.flows, "old").await.expect("the store answers"), Some(4));
    assert_eq!(post(&rig, "old", b"new").await, Posted::Differs);
    assert_eq!(post_media(&rig, "old", b"new").await, Posted::Differs);
    assert_eq!(post(&rig, "new", b"1234").await, Posted::Full, "both count");
    assert_eq!(post(&rig, "new", b"123").await, Posted::Stored);
    assert_eq!(acknowledge(&rig, "old", true, Speaker::Stranger).await, Acknowledged::Set);
    rig.wait(31 * A_DAY).await;
    sweep(&rig).await;
    assert!(!is_there(&rig, "old").await && !is_there(&rig, "new").await);
    assert_eq!(used(&rig).await, 0);
    rig.audit().await;
});
