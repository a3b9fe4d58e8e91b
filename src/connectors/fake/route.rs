//! The cheapest way through the network, for one who knows every balance.

use super::state::{Hop, State};

const PARTS: u128 = 1_000_000;

/// A way to the payee from some node: what has to leave that node.
#[derive(Clone)]
struct Way {
    amount: u64,
    /// The first is nearest to that node.
    hops: Vec<Hop>,
}

/// Channels that carry the amount and the fees of those behind; nothing where there are none. Of two that cost the same the
/// shorter one, and then the older one.
pub(super) fn cheapest(state: &State, payer: usize, payee: usize, amount: u64) -> Option<Vec<Hop>> {
    let mut open: Vec<(usize, Way)> = vec![(payee, Way { amount, hops: Vec::new() })];
    let mut seen = vec![false; state.nodes.len()];
    loop {
        let nearest = (0..open.len()).min_by_key(|index| (open[*index].1.amount, open[*index].1.hops.len(), *index))?;
        let (node, way) = open.remove(nearest);
        if node == payer && !way.hops.is_empty() {
            return Some(way.hops);
        }
        if std::mem::replace(&mut seen[node], true) {
            continue;
        }
        for (channel, details) in state.channels.iter().enumerate() {
            let Some(receiver) = details.side_of(node) else { continue };
            let sender = 1 - receiver;
            let from = details.ends[sender];
            if seen[from] || !state.is_usable(details) || details.balances[sender] < way.amount {
                continue;
            }
            let mut hops = vec![Hop { channel, sender, amount: way.amount }];
            hops.extend(&way.hops);
            // Whoever pays does not ask itself for a fee.
            let fees = details.fees[sender].unwrap_or(state.nodes[from].fees);
            let fee = if from == payer { 0 } else { fee(fees, way.amount) };
            open.push((from, Way { amount: way.amount.saturating_add(fee), hops }));
        }
    }
}

fn fee((base, ppm): (u64, u64), amount: u64) -> u64 {
    let share = u128::from(amount) * u128::from(ppm) / PARTS;
    base.saturating_add(u64::try_from(share).unwrap_or(u64::MAX))
}
