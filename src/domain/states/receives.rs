//! What arrives over Lightning.

use super::super::receive::{self, Rail, Receive};
use super::{PREIMAGE, msat, request, wallet};
use crate::money::Amount;

pub fn receive_in(state: receive::State) -> Receive {
    Receive {
        request: request(),
        wallet: wallet(),
        invoice: "lnbcrt1".to_owned(),
        hash: PREIMAGE.hash(),
        preimage: PREIMAGE,
        amount: Some(msat(1_000)),
        description: None,
        attempts: 1,
        surplus: Amount::ZERO,
        state,
    }
}

pub fn receives() -> Vec<Receive> {
    use receive::State::{Cancelled, Claiming, Expired, Open, Settled};
    let amount = msat(1_000);
    [Open, Claiming { amount }, Settled { amount, by: Rail::Channel }, Expired, Cancelled].map(receive_in).into()
}

pub fn receive_events() -> Vec<receive::Event> {
    use receive::Event::{BookPaid, Cancelled, Claimed, Held, Missed, TimedOut};
    let (amount, less) = (msat(1_000), msat(999));
    vec![
        Held { amount },
        Held { amount: less },
        Claimed { amount },
        Claimed { amount: msat(2_000) },
        Missed { attempt: 1 },
        Missed { attempt: 7 },
        BookPaid { amount },
        BookPaid { amount: less },
        TimedOut,
        Cancelled,
    ]
}

pub fn receive_event(event: &receive::Event) -> &'static str {
    use receive::Event as E;
    match event {
        E::Held { amount } if *amount == msat(1_000) => "the node holds what was asked for",
        E::Held { .. } => "the node holds less",
        E::Claimed { amount } if *amount == msat(1_000) => "the node has claimed it",
        E::Claimed { .. } => "the node has claimed it, and a second payment of it",
        E::Missed { attempt: 1 } => "what was held went back",
        E::Missed { .. } => "what was held in another attempt went back",
        E::BookPaid { amount } if *amount == msat(1_000) => "another wallet pays it in the books",
        E::BookPaid { .. } => "another wallet would pay less in the books",
        E::TimedOut => "its time is over",
        E::Cancelled => "its owner takes it back",
    }
}
