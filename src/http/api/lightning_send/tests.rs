use super::*;
use crate::flows::values::{PayTerms, Preimage, Rail};
use crate::ids::{RequestId, WalletId};

fn msat(n: u64) -> Amount {
    Amount::from_msat(n).unwrap()
}

fn view(state: PayState) -> LightningSendRequest {
    let (id, wallet) = (RequestId::fresh(), WalletId::of_triple("a", "b", "c"));
    let terms = PayTerms {
        destination: crate::domain::lightning::Destination::Bolt11("lnbcrt1".to_owned()),
        hash: Preimage([7; 32]).hash(),
        amount: msat(4_001),
        max_fee: msat(3_000),
        estimate: None,
        payee: None,
        book: None,
        door: PayDoor::PayInvoice,
        key: None,
    };
    LightningSendRequest::from(&Request {
        id,
        wallet: wallet.clone(),
        reference: None,
        label: None,
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
        expires_at: None,
        version: 1,
        machine: Pay { request: id, wallet, terms, state },
    })
}

fn succeeded(fee: u64) -> PayState {
    PayState::Succeeded { fee: msat(fee), preimage: Preimage([7; 32]), by: Rail::Channel }
}

#[test]
fn each_state_maps_and_only_success_has_a_fee_and_a_proof() {
    let failed = |why| PayState::Failed { why };
    let all = [
        (PayState::AwaitingSignature, LightningSendStatus::Pending, None),
        (PayState::Paying, LightningSendStatus::Pending, None),
        (succeeded(1_001), LightningSendStatus::Succeeded, None),
        (failed(PayFailure::NoLiquidity), LightningSendStatus::Failed, Some(("no_liquidity", true))),
        (failed(PayFailure::FeeTooHigh), LightningSendStatus::Failed, Some(("fee_limit_too_low", false))),
        (failed(PayFailure::Rejected), LightningSendStatus::Failed, Some(("rejected_by_payee", false))),
        (failed(PayFailure::InvoiceExpired), LightningSendStatus::Failed, Some(("invoice_expired", false))),
        (failed(PayFailure::NotPayable), LightningSendStatus::Failed, Some(("not_payable", false))),
        (failed(PayFailure::NeverSent), LightningSendStatus::Failed, Some(("never_sent", true))),
        (PayState::Expired, LightningSendStatus::Failed, Some(("request_expired", true))),
    ];
    for (state, status, failure) in all {
        let view = view(state);
        assert_eq!(view.status, status, "{}", view.state);
        assert_eq!(view.error_code.map(|code| (code, view.retryable)), failure);
        assert_eq!(view.error_message.is_some(), failure.is_some());
        let done = status == LightningSendStatus::Succeeded;
        assert_eq!((view.fee_sats, view.fee_msat), if done { (Some(2), Some(1_001)) } else { (None, None) });
        assert_eq!((view.preimage.is_some(), view.paid_by.is_some()), (done, done));
        assert_eq!((view.amount_sats, view.amount_msat), (Some(5), 4_001), "what is paid is rounded up");
    }
}

#[test]
fn a_wallet_is_told_what_it_paid_and_not_what_a_node_overspent() {
    let view = view(succeeded(9_000));
    assert_eq!((view.fee_sats, view.fee_msat, view.max_fee_msat), (Some(3), Some(3_000), 3_000));
}

#[test]
fn a_ceiling_may_be_zero_and_amounts_are_exact() {
    let asked = |body: &str| {
        let problem = |p: Problem| p.field.unwrap_or_default().into_owned();
        terms(crate::http::extract::parse_json(body.as_bytes()).map_err(problem)?).map_err(problem)
    };
    let wanted = asked(r#"{"invoice":" lightning:LNBCRT1 ","max_fee_sats":0,"amount_sats":5}"#).unwrap();
    assert_eq!((wanted.to.as_str(), wanted.max_fee, wanted.amount), ("LNBCRT1", Some(Amount::ZERO), Some(msat(5_000))));
    for (body, field) in [
        (r#"{}"#, "invoice"),
        (r#"{"invoice":7}"#, "invoice"),
        (r#"{"invoice":"x","max_fee_sats":-1}"#, "max_fee_sats"),
        (r#"{"invoice":"x","max_fee_sats":2100000000000001}"#, "max_fee_sats"),
        (r#"{"invoice":"x","amount_sats":1.5}"#, "amount_sats"),
        (r#"{"invoice":"x","reference":""}"#, "reference"),
    ] {
        assert_eq!(asked(body).unwrap_err(), field, "{body}");
    }
}

/// What the document shows is true: the signature is one of that message by that address.
#[test]
fn the_example_of_a_proof_is_a_proof() {
    let address = examples::ADDRESS.parse::<bitcoin::Address<_>>().unwrap().assume_checked();
    let tx = bitcoin::consensus::encode::deserialize_hex(examples::SIGNED_AUTHORIZATION).unwrap();
    let asked = Authorization {
        request: examples::ID.parse().unwrap(),
        unsigned_txid: bitcoin::Transaction::compute_txid(&tx),
        wallet: WalletId::of_triple("a", "b", "c"),
        psbt: examples::AUTHORIZATION.to_owned(),
        message: examples::MESSAGE.to_owned(),
        expires_at: Timestamp::from_millis(0),
        signed_tx: Some(tx),
        signed_at: None,
    };
    let view = AuthorizationResponse::of(asked, &address);
    assert_eq!(view.signature.as_deref(), Some(examples::SIGNATURE));
    let verdict = bip322::verify_simple_encoded(examples::ADDRESS, examples::MESSAGE, examples::SIGNATURE);
    assert!(matches!(verdict, Ok(bip322::Verification::Valid { .. })), "{verdict:?}");
}
