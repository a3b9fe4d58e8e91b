//! What happens to the node's own money beside payments, and how it stands in the books.
//!
//! A node tells each movement once, when it is certain. Payments are not told: their entries are those of their requests.

use bitcoin::{OutPoint, Txid};
use serde::{Deserialize, Serialize};

use crate::ids::RequestId;
use crate::ledger::{Account, Kind, Posting, PostingId};
use crate::money::{Amount, AssetId, Money, Sat};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Movement {
    /// Somebody paid to the node's own wallet. The script is hex.
    Arrived { outpoint: OutPoint, script: String, amount: Sat },
    /// The node's own coins went to somebody else; by this order, if it was one.
    Sent { txid: Txid, order: Option<RequestId>, amount: Sat, fee: Sat },
    /// The node's own coins went into channels, and of that something to the peers.
    Funded { txid: Txid, amount: Sat, given: Amount, fee: Sat },
    /// A peer gave the node something when it opened a channel.
    Given { channel: String, amount: Amount },
    /// A transaction that hurries another one. What it cost; below zero where it brought more than it cost.
    Bumped { txid: Txid, cost: i64 },
    /// A channel is closing: what was ours in it, payments under way included.
    Closed { channel: String, amount: Amount },
    /// What came out of closed channels is among the node's own coins.
    Swept { txid: Txid, back: Sat, fee: Sat },
    /// Nothing more comes out of a closed channel. What is missing was paid out of it, or was lost to fees and rounding.
    /// What came out beyond what should have has no owner: a penalty, or a payment that was paid and came back all the same.
    Resolved {
        channel: String,
        paid: Amount,
        claimed: Amount,
        fee: Sat,
        fraction: Amount,
        #[serde(default)]
        excess: Amount,
    },
    /// The node has earned something by forwarding.
    Forwarded { name: String, fee: Amount },
    /// The payee of a payment gave back a part of it, after it had acknowledged all of it.
    Unclaimed { payment: String, amount: Amount },
    /// The node paid this without a request, or beyond what one allows.
    Unasked { payment: String, amount: Amount },
    /// A transaction that was told is not in the chain any more, and another one is in its place, or none.
    Undone { what: Box<Movement>, times: u32 },
    /// The same transaction is in the chain again.
    Again { what: Box<Movement>, times: u32 },
}

/// Who pays for, or owns, what has no owner by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The operator: it was paid to an address of the reserve.
    Capital,
    /// Nobody knows.
    Suspense,
    /// A wallet: the entry of its own request meets this one on the account of what crosses. It has paid so much of the fee; what
    /// hurrying it has cost beyond that is the operator's.
    Wallet { fee: Sat },
}

impl Movement {
    /// Its name, for ever.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Arrived { outpoint, .. } => format!("arrived:{outpoint}"),
            Self::Sent { txid, .. } => format!("sent:{txid}"),
            Self::Funded { txid, .. } => format!("funded:{txid}"),
            Self::Given { channel, .. } => format!("given:{channel}"),
            Self::Bumped { txid, .. } => format!("bumped:{txid}"),
            Self::Closed { channel, .. } => format!("closed:{channel}"),
            Self::Swept { txid, .. } => format!("swept:{txid}"),
            Self::Resolved { channel, .. } => format!("resolved:{channel}"),
            Self::Forwarded { name, .. } => format!("forwarded:{name}"),
            Self::Unclaimed { payment, .. } => format!("unclaimed:{payment}"),
            Self::Unasked { payment, .. } => format!("unasked:{payment}"),
            Self::Undone { what, times } => format!("undone:{times}:{}", what.key()),
            Self::Again { what, times } => format!("again:{times}:{}", what.key()),
        }
    }

    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Arrived { .. } => "arrived",
            Self::Sent { .. } => "sent",
            Self::Funded { .. } => "funded",
            Self::Given { .. } => "given",
            Self::Bumped { .. } => "bumped",
            Self::Closed { .. } => "closed",
            Self::Swept { .. } => "swept",
            Self::Resolved { .. } => "resolved",
            Self::Forwarded { .. } => "forwarded",
            Self::Unclaimed { .. } => "unclaimed",
            Self::Unasked { .. } => "unasked",
            Self::Undone { .. } => "undone",
            Self::Again { .. } => "again",
        }
    }

    /// What tells whose it is.
    #[must_use]
    pub fn subject(&self) -> Option<Subject<'_>> {
        match self {
            Self::Arrived { script, .. } => Some(Subject::Paid { script }),
            Self::Sent { order, .. } => order.map(Subject::Ordered),
            Self::Undone { what, .. } | Self::Again { what, .. } => what.subject(),
            Self::Funded { .. }
            | Self::Given { .. }
            | Self::Bumped { .. }
            | Self::Closed { .. }
            | Self::Swept { .. }
            | Self::Resolved { .. }
            | Self::Forwarded { .. }
            | Self::Unclaimed { .. }
            | Self::Unasked { .. } => None,
        }
    }

    /// The entry for it. Each part of it is named by what it is, and is there at most once.
    #[must_use]
    pub fn postings(&self, id: RequestId, owner: Owner) -> Vec<Posting> {
        let mut postings = Vec::new();
        for Leg { step, debit, credit, msat } in self.legs(owner) {
            if let Some(amount) = Amount::from_msat(msat).ok().filter(|amount| !amount.is_zero()) {
                let money = Money { asset: AssetId::Btc, amount };
                postings.push(Posting {
                    id: PostingId::of(id, step),
                    request: id,
                    debit,
                    credit,
                    money,
                    kind: Kind::Post,
                });
            }
        }
        postings
    }

    fn legs(&self, owner: Owner) -> Vec<Leg> {
        use Account::{
            Capital, Channels, Closing, ClosingFees, Crossing, Onchain, OnchainFees, Rounding, RoutingFees, Suspense,
        };
        let other = match owner {
            Owner::Capital => Capital,
            Owner::Suspense => Suspense,
            Owner::Wallet { .. } => Crossing,
        };
        match self {
            Self::Arrived { amount, .. } => vec![leg("arrived", Onchain, other, msat(*amount))],
            Self::Sent { amount, fee, .. } => {
                let sent = leg("sent", other, Onchain, msat(*amount));
                match owner {
                    // The wallet that withdraws pays the fee, too.
                    Owner::Wallet { fee: paid } => {
                        let (paid, rest) = ((*fee).min(paid), fee.checked_sub(paid).unwrap_or(Sat::ZERO));
                        vec![
                            sent,
                            leg("fee", Crossing, Onchain, msat(paid)),
                            leg("hurry", OnchainFees, Onchain, msat(rest)),
                        ]
                    }
                    Owner::Capital | Owner::Suspense => vec![sent, leg("fee", OnchainFees, Onchain, msat(*fee))],
                }
            }
            Self::Funded { amount, given, fee, .. } => vec![
                leg("funded", Channels, Onchain, msat(*amount)),
                leg("fee", OnchainFees, Onchain, msat(*fee)),
                leg("given", Capital, Channels, given.base_units()),
            ],
            Self::Given { amount, .. } => vec![leg("given", Channels, Suspense, amount.base_units())],
            Self::Bumped { cost, .. } => {
                let whole = cost.unsigned_abs().saturating_mul(1_000);
                vec![if *cost >= 0 {
                    leg("cost", OnchainFees, Onchain, whole)
                } else {
                    leg("gain", Onchain, OnchainFees, whole)
                }]
            }
            Self::Closed { amount, .. } => vec![leg("closed", Closing, Channels, amount.base_units())],
            Self::Swept { back, fee, .. } => {
                vec![leg("swept", Onchain, Closing, msat(*back)), leg("fee", ClosingFees, Closing, msat(*fee))]
            }
            Self::Resolved { paid, claimed, fee, fraction, excess, .. } => vec![
                leg("paid", Channels, Closing, paid.base_units()),
                leg("claimed", Closing, Channels, claimed.base_units()),
                leg("fee", ClosingFees, Closing, msat(*fee)),
                leg("rounding", Rounding, Closing, fraction.base_units()),
                leg("excess", Closing, Suspense, excess.base_units()),
            ],
            Self::Forwarded { fee, .. } => vec![leg("fee", Channels, RoutingFees, fee.base_units())],
            Self::Unclaimed { amount, .. } => vec![leg("unclaimed", Channels, Suspense, amount.base_units())],
            Self::Unasked { amount, .. } => vec![leg("unasked", Suspense, Channels, amount.base_units())],
            Self::Undone { what, .. } => {
                let turned = |leg: Leg| Leg { debit: leg.credit, credit: leg.debit, ..leg };
                what.legs(owner).into_iter().map(turned).collect()
            }
            Self::Again { what, .. } => what.legs(owner),
        }
    }
}

/// What tells whose a movement is: where it was paid to, or the request that it was ordered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    Paid { script: &'a str },
    Ordered(RequestId),
}

struct Leg {
    step: &'static str,
    debit: Account,
    credit: Account,
    msat: u64,
}

const fn leg(step: &'static str, debit: Account, credit: Account, msat: u64) -> Leg {
    Leg { step, debit, credit, msat }
}

const fn msat(sat: Sat) -> u64 {
    Amount::from_sat(sat).base_units()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bitcoin::hashes::Hash as _;

    use super::*;

    fn txid(n: u8) -> Txid {
        Txid::from_byte_array([n; 32])
    }

    /// What each account is worth after these movements.
    fn fold(movements: &[Movement]) -> HashMap<Account, i64> {
        let mut balances = HashMap::new();
        for movement in movements {
            for posting in movement.postings(RequestId::of_movement(&movement.key()), Owner::Capital) {
                let amount = posting.money.amount.as_bigint();
                *balances.entry(posting.debit).or_default() -= amount;
                *balances.entry(posting.credit).or_default() += amount;
            }
        }
        balances
    }

    /// The life of a channel of 1,000,000 sat, of which 100,000 are given away and 200,000.4 are paid out.
    fn life() -> Vec<Movement> {
        let channel = "c".to_owned();
        let sat = Sat::literal;
        let outpoint = OutPoint { txid: txid(1), vout: 0 };
        vec![
            Movement::Arrived { outpoint, script: String::new(), amount: sat(1_500_000) },
            Movement::Funded {
                txid: txid(2),
                amount: sat(1_000_000),
                given: Amount::from_sat(sat(100_000)),
                fee: sat(300),
            },
            Movement::Closed { channel: channel.clone(), amount: Amount::from_msat(900_000_000).unwrap() },
            Movement::Resolved {
                channel,
                paid: Amount::from_msat(200_000_400).unwrap(),
                claimed: Amount::ZERO,
                fee: sat(500),
                fraction: Amount::from_msat(600).unwrap(),
                excess: Amount::ZERO,
            },
            Movement::Swept { txid: txid(3), back: sat(699_300), fee: sat(199) },
        ]
    }

    #[test]
    fn a_channel_leaves_nothing_behind_but_what_was_paid_out_of_it() {
        let balances = fold(&life());
        assert_eq!(balances[&Account::Closing], 0);
        assert_eq!(balances[&Account::Channels], -200_000_400, "a payment's own entry makes this zero");
        assert_eq!(balances[&Account::Onchain], -(1_500_000 - 1_000_300 + 699_300) * 1_000);
        assert_eq!(balances[&Account::Rounding], -600);
        assert_eq!(balances.values().sum::<i64>(), 0);
    }

    #[test]
    fn what_is_undone_leaves_no_trace_and_may_come_again() {
        for movement in life() {
            let undone = Movement::Undone { what: Box::new(movement.clone()), times: 1 };
            assert!(fold(&[movement.clone(), undone.clone()]).values().all(|balance| *balance == 0));
            let again = Movement::Again { what: Box::new(movement.clone()), times: 1 };
            assert_ne!(again.key(), movement.key());
            assert_eq!(fold(&[movement.clone(), undone, again]), fold(std::slice::from_ref(&movement)));
        }
    }

    #[test]
    fn what_nobody_asked_for_and_what_nobody_took_wait_in_suspense() {
        let (payment, amount) = ("p".to_owned(), Amount::from_msat(7).unwrap());
        let unasked = fold(&[Movement::Unasked { payment: payment.clone(), amount }]);
        assert_eq!((unasked[&Account::Suspense], unasked[&Account::Channels]), (-7, 7));
        let unclaimed = fold(&[Movement::Unclaimed { payment, amount }]);
        assert_eq!((unclaimed[&Account::Suspense], unclaimed[&Account::Channels]), (7, -7));
    }

    #[test]
    fn what_belongs_to_a_wallet_crosses_with_its_fee() {
        let sent = Movement::Sent { txid: txid(4), order: None, amount: Sat::literal(5_000), fee: Sat::literal(200) };
        let legs = |owner| {
            let postings = sent.postings(RequestId::of_movement("a"), owner).into_iter();
            postings.map(|one| (one.debit, one.money.amount.base_units())).collect::<Vec<_>>()
        };
        let fee = Sat::literal(200);
        assert_eq!(legs(Owner::Wallet { fee }), [(Account::Crossing, 5_000_000), (Account::Crossing, 200_000)]);
        let hurried = [(Account::Crossing, 5_000_000), (Account::Crossing, 150_000), (Account::OnchainFees, 50_000)];
        assert_eq!(legs(Owner::Wallet { fee: Sat::literal(150) }), hurried);
        assert_eq!(legs(Owner::Suspense), [(Account::Suspense, 5_000_000), (Account::OnchainFees, 200_000)]);
    }
}
