use std::collections::BTreeSet;

use bitcoin::Txid;
use bitcoin::hashes::Hash;

use super::*;
use crate::flows::values::{Door, OnchainSend, Request, Terms};
use crate::ids::{RequestId, WalletId};
use crate::money::FeeRate;

fn send(state: SendState, roles: &[Role]) -> Send {
    let id = RequestId::fresh();
    let wallet = WalletId::of_triple("a", "b", "c");
    let terms = Terms {
        to: "somewhere".to_owned(),
        amount_requested: Sat::literal(1_000),
        amount_sent: Sat::literal(900),
        fee_rate: FeeRate::RELAY_MINIMUM,
        deduct_fee: true,
        door: Door::OnchainSend,
        assets: None,
    };
    let versions = roles.iter().zip(0u8..).map(|(role, n)| IssuedTx {
        unsigned_txid: txid(n),
        request: id,
        wallet: wallet.clone(),
        role: *role,
        psbt: String::new(),
        fee: Sat::literal(100 + u64::from(n)),
        fee_rate: FeeRate::RELAY_MINIMUM,
        created_at: Timestamp::from_millis(0),
        expires_at: Timestamp::from_millis(0),
        signed_tx: None,
    });
    let request = Request {
        id,
        wallet: wallet.clone(),
        reference: None,
        label: None,
        created_at: Timestamp::from_millis(1_000),
        updated_at: Timestamp::from_millis(2_000),
        expires_at: None,
        version: 1,
        machine: OnchainSend { terms, state },
    };
    Send { request, versions: versions.collect(), is_with_no_node: false }
}

fn txid(n: u8) -> Txid {
    Txid::from_byte_array([n; 32])
}

fn every_state() -> Vec<SendState> {
    vec![
        SendState::AwaitingSignature,
        SendState::Broadcast { txid: txid(0), last_error: None },
        SendState::Seen { txid: txid(0), height: 5, role: Role::Original },
        SendState::Confirmed { txid: txid(0), height: 5 },
        SendState::Cancelled { txid: txid(0), height: 5 },
        SendState::Conflicted { by: txid(9), signed: None },
        SendState::Expired,
        SendState::WaitingAck { txid: txid(0) },
        SendState::Failed { reason: "nobody accepted".to_owned() },
    ]
}

#[test]
fn each_state_has_its_word_and_its_reason() {
    let seen: Vec<_> = every_state()
        .into_iter()
        .map(|state| {
            let view = GetOnchainSendResponse::from(&send(state, &[Role::Original]));
            let status = serde_json::to_value(view.status).unwrap().as_str().unwrap().to_owned();
            (view.state, status, view.error_code, view.amount_sats_sent.is_some(), view.height.is_some())
        })
        .collect();
    let row = |state, status: &str, code, sent, height| (state, status.to_owned(), code, sent, height);
    let expected = vec![
        row("awaiting_signature", "REQUESTED", None, false, false),
        row("broadcast", "BROADCASTED", None, true, false),
        row("seen", "BROADCASTED", None, true, true),
        row("confirmed", "CONFIRMED", None, true, true),
        row("cancelled", "FAILED", Some("cancelled"), false, true),
        row("conflicted", "FAILED", Some("inputs_spent"), false, false),
        row("expired", "FAILED", Some("request_expired"), false, false),
        row("waiting_ack", "REQUESTED", None, false, false),
        row("failed", "FAILED", Some("given_up"), false, false),
    ];
    assert_eq!(seen, expected);
    let states: BTreeSet<_> = seen.iter().map(|(state, ..)| *state).collect();
    let of_offchain_money = ["requested", "queued", "closing_channels", "waiting_close", "sweeping"];
    let of_coins: BTreeSet<_> = SEND_STATES.into_iter().filter(|state| !of_offchain_money.contains(state)).collect();
    assert_eq!(states, of_coins);
}

#[test]
fn each_state_of_a_withdrawal_has_its_word_and_its_reason() {
    let (txid, fee, height) = (txid(1), Sat::literal(100), 7);
    let states = [
        (WithdrawState::AwaitingSignature, "REQUESTED", None, false),
        (WithdrawState::Requested { since: 1 }, "REQUESTED", None, false),
        (WithdrawState::Queued { reason: "short".to_owned() }, "REQUESTED", Some("reserve_low"), false),
        (WithdrawState::ClosingChannels, "CLOSING_CHANNELS", None, false),
        (WithdrawState::WaitingClose { since: 1 }, "WAITING_CLOSE_CONFIRMATIONS", None, false),
        (WithdrawState::Sweeping { height }, "SWEEPING_OUTPUTS", None, false),
        (WithdrawState::Broadcast { txid, fee }, "BROADCASTED", None, true),
        (WithdrawState::Seen { txid, fee, height }, "BROADCASTED", None, true),
        (WithdrawState::Confirmed { txid, fee, height }, "CONFIRMED", None, true),
        (WithdrawState::Cancelled, "FAILED", Some("cancelled"), false),
        (WithdrawState::Expired, "FAILED", Some("request_expired"), false),
    ];
    for (state, status, code, sent) in states {
        let is_queued = matches!(state, WithdrawState::Queued { .. });
        let view = GetOnchainSendResponse::from(&withdrawal(state));
        assert_eq!(serde_json::to_value(view.status).unwrap(), status);
        assert_eq!((view.error_code, view.amount_sats_sent.is_some(), view.fee_sats.is_some()), (code, sent, sent));
        assert_eq!((view.retryable, view.source), (is_queued, "offchain"));
        assert!(SEND_STATES.contains(&view.state));
    }
}

fn withdrawal(state: WithdrawState) -> Request<Withdraw> {
    let (request, wallet) = (crate::ids::RequestId::fresh(), crate::ids::WalletId::of_triple("a", "b", "c"));
    let terms = crate::domain::withdraw::Terms {
        to: "bcrt1".to_owned(),
        amount_requested: Sat::literal(1_000),
        amount_sent: Sat::literal(1_000),
        fee_rate: crate::money::FeeRate::from_sat_per_vb(1),
        max_fee: Sat::literal(200),
        deduct_fee: false,
    };
    Request {
        id: request,
        wallet: wallet.clone(),
        reference: None,
        label: None,
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
        expires_at: None,
        version: 1,
        machine: Withdraw { request, wallet, terms, closes: Vec::new(), attempts: 0, state },
    }
}

#[test]
fn only_what_is_over_is_completed() {
    for state in every_state() {
        let open = Status::of(&state) == Status::Requested || Status::of(&state) == Status::Broadcasted;
        assert_eq!(timestamps(&send(state, &[])).contains_key("completed"), !open);
    }
}

#[test]
fn a_version_that_pays_back_sends_nothing() {
    let state = SendState::Broadcast { txid: txid(1), last_error: Some("mempool full".to_owned()) };
    let view = GetOnchainSendResponse::from(&send(state, &[Role::Original, Role::Cancel]));
    assert_eq!(view.amount_sats_sent, None);
    assert_eq!(view.fee_sats, Some(Sat::literal(101)));
    assert_eq!(view.last_error.as_deref(), Some("mempool full"));
}

#[test]
fn what_is_empty_is_null_and_never_left_out() {
    let view = GetOnchainSendResponse::from(&send(SendState::AwaitingSignature, &[]));
    let json = serde_json::to_value(view).unwrap();
    for field in
        ["amount_sats_sent", "asset", "sweep_txid", "fee_sats", "error_code", "error_message", "txid", "height"]
    {
        assert!(json.as_object().unwrap().get(field).is_some_and(serde_json::Value::is_null), "{field}");
    }
    assert_eq!(json["close_txids"], serde_json::json!([]));
}
