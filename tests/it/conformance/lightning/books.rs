//! What the node says that it has told of its own money, at moments at which not all of it is certain.

use sluice::ledger::Account;
use sluice::money::{Amount, Sat};
use sluice::ports::lightning::{Asked, CloseHow, Movement, Told};

use super::channels::{BURIED, CAPACITY, LOCK, PUSHED, fold, open, told};
use super::{AMOUNT, World, plus};
use crate::harness::peer::{eventually, eventually_shown};

/// Enough for a channel, its fees, and bumping its end.
const COINS: Sat = Sat::literal(1_000_000);

/// What the node says is what its movements add up to, less what was received over channels beside them: at once, or soon.
async fn told_adds_up(w: &World, step: &str, received: i64) -> Told {
    eventually_shown(&format!("what was told adds up: {step}"), async || {
        let all = told(w).await;
        let said = w.node().told().await.unwrap();
        let of = |account| fold(&all, &account);
        let sums = (of(Account::Channels) + received, of(Account::Closing), of(Account::Onchain));
        let is_so = !said.is_behind && (said.channels, said.closing + said.unresolved, said.onchain) == sums;
        if is_so { Ok(said) } else { Err((said, sums)) }
    })
    .await
}

pub async fn what_a_peer_only_begins_is_nothing(w: &World) {
    let info = w.node().info().await.unwrap();
    let address = info.listens.first().cloned().unwrap_or_default();
    let before = w.node().balance().await.unwrap();
    let told_before = told_adds_up(w, "at first", 0).await;
    w.near().begin_channel(info.id, &address, CAPACITY, PUSHED).await;
    eventually("the channel is there", async || (w.node().channels().await.unwrap().len() == 2).then_some(())).await;
    let began = w.node().balance().await.unwrap();
    assert_eq!((began.channels, began.reserve, began.closing), (before.channels, before.reserve, before.closing));
    assert!(!began.is_moving, "it moves nothing of ours");
    assert_eq!(told_adds_up(w, "begun", 0).await, told_before);
    w.rig.something_waits().await;
    w.rig.mine(BURIED).await;
    let with_it = plus(before.channels, PUSHED);
    eventually_shown("what was given is ours", async || {
        let now = w.node().balance().await.unwrap().channels;
        if now == with_it { Ok(()) } else { Err(now) }
    })
    .await;
    let now = told_adds_up(w, "in a block", 0).await;
    assert_eq!(now.channels - told_before.channels, PUSHED.as_bigint());
}

pub async fn what_was_told_is_known_at_every_step(w: &World) {
    w.rig.fund(COINS).await;
    let before = told_adds_up(w, "funded", 0).await;
    let id = open(w).await;
    let opened = told_adds_up(w, "opened", 0).await;
    assert_eq!(opened.channels - before.channels, Amount::from_sat(CAPACITY).as_bigint() - PUSHED.as_bigint());
    assert_eq!(w.node().close_channel(&id, CloseHow::Cooperative).await, Ok(Asked::Done(())));
    w.rig.something_waits().await;
    told_adds_up(w, "closing", 0).await;
    eventually_shown("nothing moves any more", async || {
        w.rig.mine(1).await;
        told_adds_up(w, "closing, a block later", 0).await;
        let balance = w.node().balance().await.unwrap();
        if balance.is_moving { Err(balance) } else { Ok(()) }
    })
    .await;
    let after = told_adds_up(w, "closed", 0).await;
    assert_eq!((after.channels, after.unresolved, after.closing), (before.channels, 0, 0));
}

/// The last of its group. The peer says nothing from when the payment is claimed to when the channel is closed: it is still in the channel
/// then. What was claimed is ours to the millisatoshi, and what closing costs us, who have opened it, is no payment's.
pub async fn a_payment_that_is_claimed_in_a_channel_that_is_closed_by_force(w: &World) {
    w.rig.fund(COINS).await;
    let id = open(w).await;
    let before = told_adds_up(w, "opened", 0).await;
    let (invoice, preimage) = w.invoice(Some(AMOUNT)).await;
    w.far().pay(&invoice, None).await;
    w.held(preimage.hash()).await;
    w.far().freeze();
    w.node().claim(preimage.hash(), Some(preimage)).await.unwrap();
    assert_eq!(w.claimed(preimage.hash()).await, AMOUNT);
    assert_eq!(w.node().close_channel(&id, CloseHow::Force).await, Ok(Asked::Done(())));
    w.far().go_on();
    w.rig.something_waits().await;
    w.rig.mine(LOCK).await;
    eventually_shown("nothing moves any more", async || {
        w.rig.mine(1).await;
        let balance = w.node().balance().await.unwrap();
        if balance.is_moving { Err(balance) } else { Ok(()) }
    })
    .await;
    let after = told_adds_up(w, "closed", AMOUNT.as_bigint()).await;
    assert_eq!((after.unresolved, after.closing), (0, 0));
    let all = told(w).await;
    let resolved = all.iter().any(|movement| matches!(movement, Movement::Resolved { channel, .. } if *channel == id));
    assert!(resolved, "{all:#?}");
    assert!(after.channels < before.channels, "the channel is gone");
    let balance = w.node().balance().await.unwrap();
    assert_eq!(after.channels, balance.channels.as_bigint(), "and nothing of it is left in the books");
}
