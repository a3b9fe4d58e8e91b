//! The part of the audit that asks the Lightning node: whether the books say of its money what it says itself, and whether what is
//! owed is covered.
//!
//! Both sides leave out what is not certain: a channel that is not ready, what becomes of one that is closing, a transaction that is in
//! no block. So nothing that a peer or a wallet begins keeps the rest from being compared. Payments that are under way are a bound.

use std::sync::Arc;

use super::audit::{Drift, Report, Solvency, Surplus};
use super::{Error, Flows};
use crate::money::{Amount, Sat};
use crate::ports::PortError;
use crate::ports::lightning::{LightningNode, NodeBalance, Told};
use crate::store::books::{self, Position};

const CHANNELS: &str = "node_channels_are_what_the_node_says";
const CLOSING: &str = "node_closing_is_what_the_node_says";
const ONCHAIN: &str = "node_onchain_is_what_the_node_says";
const CROSSING: &str = "nothing_is_left_between_the_node_and_wallets";
/// What is compared with the node, which moves while it is looked at.
pub const OF_THE_NODE: [&str; 4] = [CHANNELS, CLOSING, ONCHAIN, CROSSING];
/// Claims of wallets are covered by what the node has.
pub const SOLVENT: &str = "what_is_owed_is_covered";
/// How often the node and the books are asked again when something moved between the two.
const LOOKS: usize = 5;

/// The node and the books at one moment.
struct Seen {
    balance: NodeBalance,
    told: Told,
    position: Position,
    /// The block that the node has read.
    height: u32,
    /// The node has told something that is not entered yet.
    is_behind: bool,
}

pub(super) async fn audit_node(flows: &Flows, report: &mut Report) -> Result<(), Error> {
    let node = match flows.node().node() {
        Ok(node) => node,
        Err(error) => return without_node(flows, report, error.to_string()).await,
    };
    match look(flows, &node).await? {
        Err(why) => {
            for rule in [CHANNELS, CLOSING, ONCHAIN, CROSSING, SOLVENT] {
                report.pending.push(Drift::new(rule, why.clone()));
            }
        }
        Ok(seen) => {
            compare(&seen, report);
            cover(&seen, report);
        }
    }
    Ok(())
}

/// Where no node ever was, there is nothing to compare.
async fn without_node(flows: &Flows, report: &mut Report, why: String) -> Result<(), Error> {
    let mut conn = flows.store().read().await?;
    if books::position(&mut conn).await? != Position::default() {
        for rule in [CHANNELS, CLOSING, ONCHAIN, CROSSING, SOLVENT] {
            report.pending.push(Drift::new(rule, why.clone()));
        }
    }
    Ok(())
}

/// Both at a moment at which the node did not move; or why there was none.
async fn look(flows: &Flows, node: &Arc<dyn LightningNode>) -> Result<Result<Seen, String>, Error> {
    for _ in 0..LOOKS {
        match look_once(flows, node).await? {
            Ok(Some(seen)) => return Ok(Ok(seen)),
            Ok(None) => {}
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    Ok(Err("the node's money moved while it was looked at; run the audit again".to_owned()))
}

async fn look_once(flows: &Flows, node: &Arc<dyn LightningNode>) -> Result<Result<Option<Seen>, PortError>, Error> {
    let (before, balance) = match ask(node).await {
        Ok(asked) => asked,
        Err(error) => return Ok(Err(error)),
    };
    let mut snapshot = flows.store().snapshot().await?;
    let position = books::position(&mut snapshot).await?;
    drop(snapshot);
    let news = match node.movements(position.cursor, 1).await {
        Ok(news) => news,
        Err(error) => return Ok(Err(error)),
    };
    let (told, after) = match ask(node).await {
        Ok(asked) => asked,
        Err(error) => return Ok(Err(error)),
    };
    let height = match node.info().await {
        Ok(info) => info.height,
        Err(error) => return Ok(Err(error)),
    };
    let is_behind = told.is_behind || !news.is_empty();
    let is_still = told == before && after == balance;
    Ok(Ok(is_still.then_some(Seen { balance, told, position, height, is_behind })))
}

async fn ask(node: &Arc<dyn LightningNode>) -> Result<(Told, NodeBalance), PortError> {
    Ok((node.told().await?, node.balance().await?))
}

fn compare(seen: &Seen, report: &mut Report) {
    let Seen { balance, told, position, height, is_behind } = seen;
    let slack = msat(balance.in_flight)
        .saturating_add(msat(balance.coming))
        .saturating_add(position.paying)
        .saturating_add(position.claiming);
    if *is_behind {
        for rule in OF_THE_NODE {
            report.pending.push(Drift::new(rule, "the node has told what is not entered yet".to_owned()));
        }
        return;
    }
    if slack > 0 || position.waiting > 0 {
        let detail = format!("payments of {slack} msat are under way; the books may differ by so much");
        report.pending.push(Drift::new(CHANNELS, detail));
    }
    let closing = position.closing.saturating_sub(told.unresolved);
    for (rule, account, books, node, slack) in [
        (CHANNELS, "node:channels", position.channels, told.channels, slack),
        (CLOSING, "node:closing", closing, told.closing, 0),
        (ONCHAIN, "node:onchain", position.onchain, told.onchain, 0),
    ] {
        let more = node.saturating_sub(books);
        let short = more < slack.saturating_neg();
        let broken = short.then(|| format!("{books} msat in the books, {node} msat at the node"));
        report.note(rule, 1, broken.into_iter().collect());
        if more > slack {
            report.surplus.push(Surplus { rule, account, books_msat: books, more_msat: more });
        }
    }
    if position.crossings > 0 || position.height != Some(*height) {
        let detail = format!("{} withdrawals are perhaps on their way, or a block is being read", position.crossings);
        report.pending.push(Drift::new(CROSSING, detail));
        return;
    }
    let left = (position.crossing != 0).then(|| format!("{} msat, and nothing is under way", position.crossing));
    report.note(CROSSING, 1, left.into_iter().collect());
}

/// Only what is certain counts against the operator: a payment that may have left is not owed any more, and one that is coming in
/// may be here already. A reserve that is not there can't be missing.
fn cover(seen: &Seen, report: &mut Report) {
    let Seen { balance, told: _, position, height: _, is_behind: _ } = seen;
    let onchain = balance.onchain_confirmed.checked_add(balance.onchain_unconfirmed).unwrap_or(Sat::MAX);
    let free = onchain.checked_sub(balance.reserve).unwrap_or(Sat::ZERO);
    let backing = [msat(balance.channels), msat(balance.in_flight), sat(balance.closing), sat(free)]
        .into_iter()
        .fold(0_i64, i64::saturating_add);
    report.solvency = Some(Solvency { claims_msat: position.claims, backing_msat: backing });
    let least = position.claims.saturating_sub(position.paying);
    let most = backing.saturating_add(msat(balance.coming));
    let broken = (least > most).then(|| {
        format!("wallets own {} msat, and {backing} msat are there for it, the reserve left out", position.claims)
    });
    report.note(SOLVENT, 1, broken.into_iter().collect());
}

const fn msat(amount: Amount) -> i64 {
    amount.as_bigint()
}

const fn sat(sat: Sat) -> i64 {
    Amount::from_sat(sat).as_bigint()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(channels: u64, books: i64, claims: i64) -> Seen {
        let balance = NodeBalance { channels: Amount::from_msat(channels).unwrap(), ..NodeBalance::default() };
        let told = Told { channels: i64::try_from(channels).unwrap(), ..Told::default() };
        let position = Position { channels: books, claims, height: Some(7), ..Position::default() };
        Seen { balance, told, position, height: 7, is_behind: false }
    }

    fn reported(seen: &Seen) -> Report {
        let mut report = Report::default();
        compare(seen, &mut report);
        cover(seen, &mut report);
        report
    }

    fn drifts(seen: &Seen) -> Vec<&'static str> {
        reported(seen).drifts.iter().map(|drift| drift.rule).collect()
    }

    #[test]
    fn a_millisatoshi_is_a_drift_when_nothing_is_under_way() {
        assert_eq!(drifts(&seen(1_000, 1_000, 1_000)), [""; 0]);
        assert_eq!(drifts(&seen(1_000, 1_001, 1_000)), [CHANNELS]);
        assert_eq!(drifts(&seen(1_000, 1_000, 1_001)), [SOLVENT]);
    }

    #[test]
    fn what_the_node_has_more_is_no_drift() {
        let more = reported(&seen(1_001, 1_000, 1_000));
        assert_eq!(more.drifts, []);
        let surplus = Surplus { rule: CHANNELS, account: "node:channels", books_msat: 1_000, more_msat: 1 };
        assert_eq!(more.surplus, [surplus]);
    }

    #[test]
    fn what_is_under_way_is_a_bound() {
        let mut paying = seen(900, 1_000, 1_000);
        paying.position.paying = 100;
        assert_eq!(drifts(&paying), [""; 0]);
        paying.position.channels = 1_001;
        assert_eq!(drifts(&paying), [CHANNELS]);
        paying.is_behind = true;
        assert_eq!(drifts(&paying), [""; 0]);
    }

    #[test]
    fn a_channel_that_opens_or_closes_keeps_nothing_else_from_being_compared() {
        let mut moving = seen(1_000, 1_001, 1_000);
        moving.balance.is_moving = true;
        assert_eq!(drifts(&moving), [CHANNELS]);
        moving = seen(1_000, 1_000, 1_000);
        (moving.position.closing, moving.told.unresolved) = (70, 70);
        assert_eq!(drifts(&moving), [""; 0]);
        moving.position.closing = 71;
        assert_eq!(drifts(&moving), [CLOSING]);
    }

    #[test]
    fn nothing_is_left_between_the_rails_once_all_is_told() {
        let mut left = seen(1_000, 1_000, 0);
        left.position.crossing = 1;
        assert_eq!(drifts(&left), [CROSSING]);
        left.position.crossings = 1;
        assert_eq!(drifts(&left), [""; 0], "it is not known whether a withdrawal is out");
        left.position.crossings = 0;
        left.position.height = Some(8);
        assert_eq!(drifts(&left), [""; 0], "the node has not read this block");
    }

    #[test]
    fn the_reserve_covers_no_claim() {
        let mut rich = seen(0, 0, 50_000);
        rich.balance.onchain_confirmed = Sat::literal(60);
        (rich.position.onchain, rich.told.onchain) = (60_000, 60_000);
        assert_eq!(drifts(&rich), [""; 0]);
        rich.balance.reserve = Sat::literal(11);
        assert_eq!(drifts(&rich), [SOLVENT]);
    }
}
