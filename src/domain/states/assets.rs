//! What moves assets: invoices for them, and sends that wait for their payees.

use super::super::asset_receive::{Arrival, AssetReceive, Event, Onto, State};
use super::super::onchain_send::{AssetTerms, OnchainSend, Payee, Terms};
use super::{HEIGHT, NOW, msat, ours, request};

/// The same send, of an asset.
pub fn moving_an_asset(send: OnchainSend) -> OnchainSend {
    let payee = Payee {
        asset: "rgb:a".to_owned(),
        amount: msat(10),
        recipient: "r".to_owned(),
        endpoints: Vec::new(),
        vout: None,
    };
    let assets = AssetTerms { request: request(), batch: 1, accept_by: NOW, payees: vec![payee] };
    OnchainSend { terms: Terms { assets: Some(assets), ..send.terms }, state: send.state }
}

pub fn arrival() -> Arrival {
    Arrival { asset: "rgb:a".to_owned(), amount: msat(10), txid: ours() }
}

pub fn asset_receives() -> Vec<AssetReceive> {
    let of = |state| AssetReceive {
        request: request(),
        invoice: "rgb:".to_owned(),
        recipient: "r".to_owned(),
        batch: 1,
        onto: Onto::Blind,
        asset: None,
        amount: None,
        min_confirmations: 1,
        address_request: None,
        state,
    };
    vec![
        of(State::Open),
        of(State::Arriving(arrival())),
        of(State::Seen { arrival: arrival(), height: HEIGHT }),
        of(State::Settled { arrival: arrival(), height: Some(HEIGHT) }),
        of(State::Reorged(arrival())),
        of(State::Expired),
        of(State::Cancelled),
    ]
}

pub fn asset_receive_events() -> Vec<Event> {
    vec![
        Event::Accepted(arrival()),
        Event::Mined { height: HEIGHT },
        Event::Mined { height: HEIGHT + 1 },
        Event::Settled,
        Event::Unmined,
        Event::TimedOut,
        Event::Cancelled,
    ]
}

pub fn asset_receive_event(event: &Event) -> &'static str {
    match event {
        Event::Accepted(_) => "the engine accepts what a payer brought",
        Event::Mined { height: HEIGHT } => "its transaction is in a block",
        Event::Mined { .. } => "is in another block",
        Event::Settled => "the engine counts it as settled",
        Event::Unmined => "the block is disconnected",
        Event::TimedOut => "its time is over",
        Event::Cancelled => "its owner takes it back",
    }
}
