//! What crosses between the rails: credits and withdrawals.

use bitcoin::OutPoint;

use super::super::credit::{self, Credit};
use super::super::withdraw::{self, Withdraw};
use super::{HEIGHT, msat, ours, request, stranger, wallet};
use crate::money::{FeeRate, Sat};

pub fn credits() -> Vec<Credit> {
    use credit::State::{Credited, Evicted, Mined, Reorged, Replaced, Seen};
    let of = |state| Credit {
        request: request(),
        wallet: wallet(),
        outpoint: OutPoint::null(),
        address: "bcrt1".to_owned(),
        amount: Sat::literal(1),
        times: 1,
        state,
    };
    let (mined, credited) = (Mined { height: HEIGHT }, Credited { height: HEIGHT });
    [Seen, mined, credited, Replaced { by: stranger() }, Evicted, Reorged].map(of).into()
}

pub fn credit_events() -> Vec<credit::Event> {
    use credit::Event::{Deep, Evicted, InMempool, Mined, Replaced, Revived, Unmined};
    let (rich, poor) = (Unmined { available: msat(1_000) }, Unmined { available: msat(400) });
    let mined = |height| Mined { height };
    vec![InMempool, mined(HEIGHT), mined(HEIGHT + 1), Deep, rich, poor, Replaced { by: stranger() }, Evicted, Revived]
}

pub fn credit_event(event: &credit::Event) -> &'static str {
    match event {
        credit::Event::InMempool => "its transaction is in the mempool",
        credit::Event::Mined { height: HEIGHT } => "is in a block",
        credit::Event::Mined { .. } => "is in another block",
        credit::Event::Deep => "the block is deep enough",
        credit::Event::Unmined { available } if *available == msat(1_000) => "the block is disconnected",
        credit::Event::Unmined { .. } => "is disconnected, and some of it is spent",
        credit::Event::Replaced { .. } => "another transaction spent its inputs",
        credit::Event::Evicted => "it left the mempool",
        credit::Event::Revived => "it is offered again",
    }
}

fn withdraw_in(state: withdraw::State) -> Withdraw {
    let terms = withdraw::Terms {
        to: "bcrt1".to_owned(),
        amount_requested: Sat::literal(1_000),
        amount_sent: Sat::literal(1_000),
        fee_rate: FeeRate::from_sat_per_vb(1),
        max_fee: Sat::literal(200),
        deduct_fee: false,
    };
    let close = withdraw::Close { channel: "c0".to_owned(), funding: OutPoint::null(), txid: None, swept_by: None };
    let closes = match state {
        withdraw::State::ClosingChannels | withdraw::State::WaitingClose { .. } | withdraw::State::Sweeping { .. } => {
            vec![close]
        }
        withdraw::State::AwaitingSignature
        | withdraw::State::Requested { .. }
        | withdraw::State::Queued { .. }
        | withdraw::State::Broadcast { .. }
        | withdraw::State::Seen { .. }
        | withdraw::State::Confirmed { .. }
        | withdraw::State::Cancelled
        | withdraw::State::Expired => Vec::new(),
    };
    Withdraw { request: request(), wallet: wallet(), terms, closes, attempts: 0, state }
}

const FEE: Sat = Sat::literal(100);

pub fn withdraws() -> Vec<Withdraw> {
    use withdraw::State::{
        AwaitingSignature, Broadcast, Cancelled, ClosingChannels, Confirmed, Expired, Queued, Requested, Seen,
        Sweeping, WaitingClose,
    };
    let (txid, fee, height) = (ours(), FEE, HEIGHT);
    let states = [
        AwaitingSignature,
        Requested { since: HEIGHT },
        Queued { reason: "short".to_owned() },
        ClosingChannels,
        WaitingClose { since: HEIGHT },
        Sweeping { height },
        Broadcast { txid, fee },
        Seen { txid, fee, height },
        Confirmed { txid, fee, height },
        Cancelled,
        Expired,
    ];
    states.map(withdraw_in).into()
}

pub fn withdraw_events() -> Vec<withdraw::Event> {
    use withdraw::Event::{
        Cancelled, Close, CloseMined, Closed, Deep, Mined, NotClosed, Replaced, Sent, Short, Signed, Swept, Taken,
        TimedOut, Unmined,
    };
    let (txid, height) = (ours(), HEIGHT);
    let sent = |fee| Sent { txid, fee };
    let short = |attempt| Short { attempt, reason: "short".to_owned() };
    let mined = |height| Mined { height };
    vec![
        Signed { height },
        TimedOut,
        sent(FEE),
        sent(Sat::literal(201)),
        Replaced { txid: stranger() },
        short(0),
        short(7),
        Close { channel: "c1".to_owned(), funding: OutPoint::null() },
        NotClosed { reason: "short".to_owned() },
        Closed { height },
        CloseMined { txid: stranger(), height },
        Swept { by: Some(stranger()), height },
        Taken { height },
        Cancelled,
        mined(HEIGHT),
        mined(HEIGHT + 1),
        Deep,
        Unmined,
    ]
}

pub fn withdraw_event(event: &withdraw::Event) -> &'static str {
    use withdraw::Event as E;
    match event {
        E::Signed { .. } => "`end` took the consent",
        E::TimedOut => "the time for the consent is over",
        E::Sent { fee, .. } if *fee == FEE => "the node has sent it",
        E::Sent { .. } => "the node has sent it at a higher fee than it was allowed",
        E::Replaced { .. } => "the node has sent another version of it",
        E::Short { attempt: 0, .. } => "the node's coins do not reach",
        E::Short { .. } => "the node's coins did not reach in another attempt",
        E::Close { .. } => "a channel is to be closed for it",
        E::NotClosed { .. } => "that channel can't be closed now",
        E::Closed { .. } => "the node has closed it",
        E::CloseMined { .. } => "the transaction that closed it is in a block",
        E::Swept { .. } => "what it brought is among the node's coins",
        E::Taken { .. } => "somebody takes it to the node",
        E::Cancelled => "its owner takes it back",
        E::Mined { height: HEIGHT } => "it is in a block",
        E::Mined { .. } => "it is in another block",
        E::Deep => "the block is deep enough",
        E::Unmined => "the block is disconnected",
    }
}
