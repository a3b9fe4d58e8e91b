//! An invoice that asks for an asset is brought to a gateway whose node carries bitcoin: paid as bitcoin, its payee would get the carrier.

use std::convert::Infallible;
use std::time::{Duration, UNIX_EPOCH};

use bitcoin::bech32::Fe32;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentSecret, RawTaggedField};
use serde_json::{Value, json};
use sluice::clock::{Clock, Timestamp};
use sluice::flows::{Code, estimate};

use crate::harness::gateway::Gateway;
use crate::harness::lightning::sat;
use crate::harness::rig::{Client, Database, Rig, on_both};

const CONTRACT: &str = "rgb:2dkSTbr-jFhznbPmo-TQafzswCN-av4gTsJjX-ttx6CNou5-M98k8Zd";
const AMOUNT_TAG: u8 = 30;
const CONTRACT_TAG: u8 = 31;

/// A field as BOLT 11 writes one: its tag, two groups of length, and the data in groups of five bits.
fn field(tag: u8, groups: &[u8]) -> RawTaggedField {
    let length = u8::try_from(groups.len() / 32).expect("short");
    let head = [tag, length, u8::try_from(groups.len() % 32).expect("five bits")];
    let all = head.iter().chain(groups).map(|group| Fe32::try_from(*group).expect("five bits"));
    RawTaggedField::UnknownSemantics(all.collect())
}

fn contract() -> RawTaggedField {
    let bits: Vec<u8> = CONTRACT.bytes().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let groups: Vec<u8> =
        bits.chunks(5).map(|five| (0..5).fold(0, |sum, bit| sum << 1 | five.get(bit).copied().unwrap_or(0))).collect();
    field(CONTRACT_TAG, &groups)
}

/// How nodes of the RGB kind write 1,234 units: 1 * 1024 + 6 * 32 + 18.
fn units() -> RawTaggedField {
    field(AMOUNT_TAG, &[1, 6, 18])
}

fn invoice(now: Timestamp, fields: Vec<RawTaggedField>) -> String {
    let key = SecretKey::from_slice(&[0x42; 32]).expect("a key");
    let hash = sha256::Hash::hash(&[u8::try_from(fields.len()).expect("few")]).to_byte_array();
    let builder = InvoiceBuilder::new(Currency::Regtest)
        .description("ten of gold".to_owned())
        .payment_hash(lightning::types::payment::PaymentHash(hash))
        .payment_secret(PaymentSecret([7; 32]))
        .timestamp(UNIX_EPOCH + Duration::from_millis(u64::try_from(now.millis()).expect("after 1970")))
        .min_final_cltv_expiry_delta(144)
        .expiry_time(Duration::from_secs(3_600))
        .amount_milli_satoshis(3_000_000)
        .basic_mpp();
    let mut raw = builder.build_raw().expect("an invoice");
    raw.data.tagged_fields.extend(fields);
    let signed = raw.sign(|message| Ok::<_, Infallible>(Secp256k1::new().sign_ecdsa_recoverable(message, &key)));
    Bolt11Invoice::from_signed(signed.expect("a signature")).expect("an invoice").to_string()
}

/// An invoice that asks for units of an asset, as a payer sees one.
pub(super) fn for_an_asset(now: Timestamp) -> String {
    invoice(now, vec![contract(), units()])
}

on_both!(an_invoice_for_an_asset_is_paid_as_bitcoin, async |rig: Rig| {
    let client = Client::number(1);
    rig.register(&client).await;
    rig.funded_offchain(&client, sat(50_000)).await;
    let key = rig.spending_key(&client, &["btc:50000/day"], None).await;
    for fields in [vec![units(), contract()], vec![contract()], vec![units()]] {
        let text = invoice(rig.clock.now(), fields);
        let refused = rig.begin_pay(&client, &text, None).await.expect_err("it asks for an asset");
        assert_eq!((refused.code(), refused.field_name()), (Code::AssetInvoice, Some("invoice")));
        let refused = rig.key_pays(&client, &key, &text, None).await.expect_err("nor does a key pay it");
        assert_eq!(refused.code(), Code::AssetInvoice);
        let refused = estimate::estimate(&rig.flows, "invoice", &text, None).await.expect_err("nor has it a price");
        assert_eq!(refused.code(), Code::AssetInvoice);
    }
    // The same without them is only one that nobody can be found for.
    rig.begin_pay(&client, &invoice(rig.clock.now(), Vec::new()), None).await.expect("it begins");
    assert_eq!(rig.lightning.node.paid().0, 0, "the node was asked to pay");
    rig.audit().await;
});

#[tokio::test]
async fn an_invoice_for_an_asset_is_read_as_one_in_bitcoin() {
    let started = Gateway::start_lightning(Database::Sqlite, &[]).await;
    let (gateway, _chain, _lightning) = started.expect("SQLite is always there");
    let caller = gateway.registered(1).await;
    let text = invoice(Clock::System.now(), vec![units(), contract()]);
    let said = caller.post("/lightning/decode", json!({ "input": text })).await.ok();
    assert_eq!((&said["asset_id"], &said["asset_amount"]), (&json!(CONTRACT), &json!(1_234)), "{said}");
    assert_eq!((&said["kind"], &said["amount_sats"]), (&json!("bolt11"), &json!(3_000)));
    let plain =
        caller.post("/lightning/decode", json!({ "input": invoice(Clock::System.now(), Vec::new()) })).await.ok();
    assert_eq!((&plain["asset_id"], &plain["asset_amount"]), (&Value::Null, &Value::Null), "{plain}");
    let begin = caller.post("/lightning/pay-invoice-begin", json!({ "invoice": text })).await;
    assert_eq!(begin.refused(400, "asset_invoice")["field"], "invoice");
    let begin = caller.post("/lightning/paybegin", json!({ "address_or_invoice": text })).await;
    assert_eq!(begin.refused(400, "asset_invoice")["field"], "address_or_invoice");
    caller.post("/lightning/fee-estimate", json!({ "invoice": text })).await.refused(400, "asset_invoice");
    gateway.stop().await;
}
