use super::*;

fn model(to: &str, amount: Option<u64>, asset: bool) -> PayBeginRequestModel {
    PayBeginRequestModel {
        address_or_invoice: to.to_owned(),
        amount_sats: amount.map(|sat| Sat::new(sat).unwrap()),
        asset: asset.then(|| LightningAsset { asset_id: "rgb:x".to_owned(), amount: 1 }),
        max_fee_sats: None,
        fee_rate: None,
        min_confirmations: None,
        expires_in_seconds: None,
        reference: None,
    }
}

fn asked(to: &str, amount: Option<u64>, asset: bool) -> Result<Way, Problem> {
    way(model(to, amount, asset), Network::Regtest, true)
}

/// What is sent on-chain, in satoshis, or over Lightning, in millisatoshis.
fn amount(way: Way) -> (Option<u64>, Option<u64>) {
    match way {
        Way::Onchain(begin) => (Some(begin.amount.to_u64()), None),
        Way::Lightning(begin) => (None, begin.amount.map(Amount::base_units)),
        Way::Asset(_) => (None, None),
    }
}

#[test]
fn the_string_says_which_rail() {
    let code = |to, asset| asked(to, Some(1), asset).unwrap_err().code;
    assert_eq!(code("lnbc1", true), Code::AssetLightningUnavailable);
    assert_eq!(code("lno1abc", true), Code::AssetLightningUnavailable);
    assert_eq!(code("bcrt1q", true), Code::InvalidRequest);
    let Ok(Way::Asset(begin)) = asked("rgb:x", None, true) else { panic!("an RGB invoice is paid in its asset") };
    assert_eq!((begin.fee_rate, begin.min_confirmations, begin.door), (5, Some(3), Door::Pay));
    assert_eq!(begin.payees[0].asset.as_deref(), Some("rgb:x"));
    assert_eq!(code("lnurl1abc", false), Code::InvalidRequest);
    assert_eq!(code("alice@example.com", false), Code::InvalidRequest);
    let Ok(Way::Onchain(begin)) = asked("bcrt1q", Some(7), false) else { panic!("an address is paid on-chain") };
    assert_eq!((begin.fee_rate, begin.min_confirmations, begin.door), (5, Some(3), Door::Pay));
    for text in ["lnbcrt1p", "LIGHTNING:lnbcrt1p", "lno1abc"] {
        let Ok(Way::Lightning(begin)) = asked(text, None, false) else { panic!("{text} is paid over Lightning") };
        assert_eq!((begin.door, begin.to_field, begin.amount), (PayDoor::Pay, TO_FIELD, None));
        assert!(begin.to.starts_with("ln"), "without its scheme: {}", begin.to);
    }
}

#[test]
fn the_call_and_the_uri_must_agree() {
    let sat = |way: Result<Way, Problem>| way.map(|way| amount(way).0).map_err(|p| p.code);
    assert_eq!(sat(asked("bitcoin:x?amount=0.00000007", None, false)), Ok(Some(7)));
    assert_eq!(sat(asked("bitcoin:x?amount=0.00000007", Some(7), false)), Ok(Some(7)));
    let uri = format!("bitcoin:{}?amount=0.00000007", examples::ADDRESS);
    assert_eq!(sat(asked(&uri, Some(8), false)), Err(Code::InvalidRequest));
    assert_eq!(sat(asked("bitcoin:x", None, false)), Err(Code::InvalidAddress), "what is no address needs no amount");
    assert_eq!(sat(asked("bitcoin:x?amount=a", None, false)), Err(Code::InvalidAddress));
    let invoice = examples::INVOICE;
    assert_eq!(sat(asked("bitcoin:?lightning=lno1abc&amount=0.00000007", Some(8), false)), Err(Code::InvalidRequest));
    assert_eq!(sat(asked(&format!("bitcoin:?lightning={invoice}"), None, false)), Ok(None));
}

#[test]
fn a_uri_with_both_goes_over_lightning_while_the_node_is_ready() {
    let invoice = examples::INVOICE;
    let uri = format!("bitcoin:bcrt1q?amount=0.00005000&lightning={}", invoice.to_uppercase());
    let way_of = |uri: &str, ready| way(model(uri, None, false), Network::Regtest, ready);
    assert_eq!(amount(way_of(&uri, true).unwrap()), (None, None), "the invoice has the word on the amount");
    assert_eq!(amount(way_of(&uri, false).unwrap()), (Some(5_000), None));
    let only = format!("bitcoin:?lightning={invoice}");
    assert_eq!(amount(way_of(&only, false).unwrap()), (None, None), "there is no other way");
    let offer = "bitcoin:bcrt1q?amount=0.00005000&lno=lno1abc";
    assert_eq!(
        amount(way_of(offer, true).unwrap()),
        (None, Some(5_000_000)),
        "an offer may leave the amount to the URI"
    );
    let code = |uri| way_of(uri, true).unwrap_err().code;
    assert_eq!(code("bitcoin:?amount=1"), Code::InvalidAddress);
}

#[test]
fn the_invoice_beside_an_address_has_a_key_that_nobody_can_send() {
    let key = Idempotency { key: "k".to_owned(), body_hash: crate::flows::BodyHash::of_bytes("h") };
    let other = for_invoice(&key);
    assert!(other.key.chars().any(|c| c.is_ascii_control()), "what a header can't carry");
    assert_eq!(other.body_hash, key.body_hash);
}
