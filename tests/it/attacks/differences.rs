//! An operator puts the books right, and nothing else does.

use sluice::flows::books::{self, Claimant};
use sluice::flows::differences::{self, Against, DifferenceBooking, Direction, NodeAccount};
use sluice::flows::{BodyHash, Code, Idempotency, audit};

use crate::harness::lightning::msat;
use crate::harness::rig::{Rig, on_both};

fn booking(direction: Direction, reason: &str) -> DifferenceBooking {
    DifferenceBooking {
        account: NodeAccount::Channels,
        against: Against::Suspense,
        amount: msat(7),
        direction,
        reason: reason.to_owned(),
        by: "key".to_owned(),
    }
}

on_both!(a_difference_is_booked_once_with_its_reason, async |rig: Rig| {
    let key = Idempotency { key: "ticket-7".to_owned(), body_hash: BodyHash::of_bytes("a") };
    let less = booking(Direction::Less, "ticket 7: a peer that was restored from a backup");
    let done = differences::book(&rig.flows, less.clone(), Some(key.clone())).await.expect("it is booked");
    assert_eq!((done.amount_msat, done.account.as_str()), (-7, "node:channels"));
    let again = differences::book(&rig.flows, less, Some(key)).await.expect("it is answered");
    assert_eq!(again, done);
    let found = audit::audit(&rig.flows).await.expect("the audit runs");
    let rules: Vec<_> = found.surplus.iter().map(|more| more.rule).collect();
    assert_eq!(rules, ["node_channels_are_what_the_node_says"], "the books are 7 msat off now: {found:?}");
    differences::book(&rig.flows, booking(Direction::More, "ticket 7: it was none"), None).await.expect("turned round");
    let items = books::suspended(&rig.flows, None, 10).await.expect("a list");
    let mut amounts: Vec<i64> = items.iter().map(|item| item.amount).filter(|amount| amount.abs() == 7).collect();
    amounts.sort_unstable();
    assert_eq!(amounts, [-7, 7]);
    for item in items.iter().filter(|item| item.amount.abs() == 7) {
        let (reason, by) = ("ticket 7".to_owned(), "key".to_owned());
        books::resolve(&rig.flows, item.id.clone(), Claimant::Capital, reason, by, None).await.expect("it is resolved");
    }
    rig.audit_exactly().await;
});

on_both!(no_difference_without_a_reason_or_an_amount, async |rig: Rig| {
    for bad in [booking(Direction::More, ""), booking(Direction::More, "two\nlines")] {
        let refused = differences::book(&rig.flows, bad, None).await.expect_err("no reason");
        assert_eq!(refused.code(), Code::InvalidRequest);
    }
    let nothing = DifferenceBooking { amount: msat(0), ..booking(Direction::More, "why") };
    assert_eq!(differences::book(&rig.flows, nothing, None).await.expect_err("nothing").code(), Code::InvalidRequest);
    assert_eq!(NodeAccount::parse("node:onchain"), Some(NodeAccount::Onchain));
    assert_eq!(NodeAccount::parse("wallet:0123456789abcdef"), None, "no wallet's account is one of the node's");
    assert_eq!(Against::parse("rounding"), Some(Against::Rounding));
    rig.audit_exactly().await;
});
