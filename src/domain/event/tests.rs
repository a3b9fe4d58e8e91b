use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::shape::{Payload, Shape};
use super::{Fact, KINDS, OF_THE_NODE, lift};
use crate::domain::movement::Movement;
use crate::money::{Amount, Sat};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/EVENTS.md");
/// Set it to write the file instead of comparing with it: `make states`.
const WRITE: &str = "SLUICE_WRITE_STATES";
const ABOUT: &str = "# Events

Every kind of event that the log has, and what its data tells. `GET /events` answers them; the API document has a schema for each.
A kind is never renamed, fields are only added, and a line that was written by an older version is answered with the fields of today.
Each event names its wallet, its request, and the reference and label of that. The file is written by `make states`.
";

fn sample(shape: &Shape) -> Value {
    match shape {
        Shape::Text => json!("a text"),
        Shape::Time => json!("2026-01-01T00:00:00Z"),
        Shape::Txid | Shape::Hash => json!("ab".repeat(32)),
        Shape::Uuid => json!("0198c0f2-9d7c-7f6e-a1c2-0d3be5a90b47"),
        Shape::Count => json!(7),
        Shape::Number => json!(-7),
        Shape::Flag => json!(true),
        Shape::OneOf(words) => json!(words[0]),
        Shape::List(inner) => json!([sample(inner)]),
        Shape::Object(payload) => sample_of(payload),
        Shape::Any => json!({ "kind": "swept" }),
        Shape::Nullable(inner) => sample(inner),
    }
}

fn sample_of(payload: &Payload) -> Value {
    let value = |name: &str, shape: &Shape| match name {
        "outpoint" | "funding" => json!(format!("{}:1", "ab".repeat(32))),
        "wallet" => json!("0123456789abcdef"),
        "wallets" => json!(["0123456789abcdef"]),
        _ => sample(shape),
    };
    Value::Object(payload.fields.iter().map(|one| (one.name.to_owned(), value(one.name, &one.shape))).collect())
}

#[test]
fn kinds_have_names_of_their_own_and_say_what_happened() {
    let names: HashSet<&str> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(names.len(), KINDS.len());
    for kind in KINDS {
        let (subject, what) = kind.name.split_once('.').expect("thing.happened");
        assert!(!subject.is_empty() && !what.is_empty() && !what.contains('.'), "{}", kind.name);
        assert!(kind.about.trim().ends_with('.') && kind.payload.about.trim().ends_with('.'), "{}", kind.name);
    }
}

#[test]
fn the_table_of_each_kind_says_what_is_written() {
    for kind in KINDS {
        let sample = sample_of(kind.payload);
        let fact = Fact::read(kind.name, sample.clone()).unwrap_or_else(|| panic!("{}: {sample}", kind.name));
        let (told, known) = (fact.to_json().expect("JSON"), kind.payload.fields.iter().map(|field| field.name));
        let fields: HashSet<&str> = told.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(fields, known.collect(), "{}", kind.name);
        assert_eq!(fact.kind(), kind.name);
    }
}

/// Payloads of one name are one payload: they have one schema.
#[test]
fn a_payload_has_one_name() {
    let mut known = BTreeMap::new();
    for kind in KINDS {
        let before = known.insert(kind.payload.name, kind.payload);
        assert!(before.is_none_or(|before| before == kind.payload), "{}", kind.payload.name);
    }
}

#[test]
fn whole_satoshis_are_told_in_millisatoshis_too() {
    for kind in KINDS {
        let fields: Vec<&str> = kind.payload.fields.iter().map(|field| field.name).collect();
        for idea in ["amount", "fee", "max_fee"] {
            let has = |unit: &str| fields.contains(&format!("{idea}_{unit}").as_str());
            assert!(!has("sats") || has("msat"), "{} tells {idea} in satoshis only", kind.name);
        }
    }
}

#[test]
fn an_old_line_has_the_fields_of_today() {
    let stored = json!({ "to": "bcrt1", "amount_sats": 5, "max_fee_sats": 2 });
    let lifted = lift("withdraw.begun", stored);
    assert_eq!(
        lifted,
        json!({ "to": "bcrt1", "amount_sats": 5, "amount_msat": 5_000, "max_fee_sats": 2, "max_fee_msat": 2_000 })
    );
    assert_eq!(lift("withdraw.begun", lifted.clone()), lifted, "once is enough");
}

#[test]
fn an_old_amount_of_an_asset_is_told_as_text_too() {
    let payee = json!({ "asset_id": "rgb:1", "amount": 5, "recipient_id": "r" });
    let stored = json!({
        "to": "rgb:1/2", "assets": [payee], "fee_sats": 1, "unsigned_txid": "ab".repeat(32), "expires_at": "2026-01-01T00:00:00Z",
    });
    assert_eq!(lift("onchain_send.begun", stored)["assets"][0]["amount_str"], "5");
    let opened = json!({ "recipient_id": "r", "asset_id": null, "amount": null });
    assert_eq!(lift("asset_receive.opened", opened)["amount_str"], Value::Null);
}

#[test]
fn an_old_movement_of_the_node_has_them_as_well() {
    let txid = "ab".repeat(32);
    let movement = Movement::Undone {
        what: Box::new(Movement::Swept {
            txid: txid.parse().expect("an id"),
            back: Sat::literal(40),
            fee: Sat::literal(2),
        }),
        times: 1,
    };
    let stored = serde_json::to_value(&movement).expect("JSON");
    let lifted = lift("node.transaction_undone", stored.clone());
    let what = json!({ "kind": "swept", "txid": txid, "back": 40, "fee": 2, "fee_msat": 2_000 });
    assert_eq!(lifted, json!({ "kind": "undone", "times": 1, "what": what }));
    assert_eq!(lift("node.transaction_undone", lifted.clone()), lifted);
    assert_eq!(Fact::from(&movement).data(), lifted);
    let given = Movement::Given { channel: "c".to_owned(), amount: Amount::from_sat(Sat::literal(1)) };
    assert_eq!(Fact::from(&given).data()["amount_msat"], 1_000);
}

#[test]
fn what_can_not_be_read_stays_as_it_is() {
    for (kind, stored) in [("of.tomorrow", json!({ "a": 1 })), ("deposit.seen", json!([1])), ("node.swept", json!({}))]
    {
        assert_eq!(lift(kind, stored.clone()), stored);
    }
}

#[test]
fn kinds_of_the_node_are_those_that_are_read_as_movements() {
    for kind in KINDS {
        assert_eq!(kind.name.starts_with(OF_THE_NODE), kind.payload.name == "NodeMovement", "{}", kind.name);
    }
}

fn spelt(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".to_owned(),
        Shape::Time => "time".to_owned(),
        Shape::Txid => "txid".to_owned(),
        Shape::Uuid => "UUID".to_owned(),
        Shape::Hash => "hash".to_owned(),
        Shape::Count | Shape::Number => "integer".to_owned(),
        Shape::Flag => "boolean".to_owned(),
        Shape::OneOf(words) => quoted(words),
        Shape::List(inner) => format!("list of {}", spelt(inner)),
        Shape::Object(payload) => format!("object ({})", names(payload)),
        Shape::Any => "object".to_owned(),
        Shape::Nullable(inner) => format!("{} or null", spelt(inner)),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn names(payload: &Payload) -> String {
    quoted(&payload.fields.iter().map(|field| field.name).collect::<Vec<_>>())
}

fn written() -> String {
    let mut text = ABOUT.to_owned();
    let mut subject = "";
    let mut payloads: Map<String, Value> = Map::new();
    for kind in KINDS {
        let of = kind.name.split_once('.').map_or("", |(subject, _)| subject);
        if of != subject {
            subject = of;
            write!(text, "\n## {subject}\n\n| Kind | What happened | Data |\n|---|---|---|\n").expect("a text");
        }
        let data = if kind.payload.fields.is_empty() {
            String::new()
        } else {
            format!("[{0}](#{1})", kind.payload.name, kind.payload.name.to_lowercase())
        };
        writeln!(text, "| `{}` | {} | {data} |", kind.name, kind.about.trim()).expect("a text");
        payloads.insert(kind.payload.name.to_owned(), Value::Null);
    }
    text.push_str("\n## Data\n");
    for name in payloads.keys() {
        let Some(kind) = KINDS.iter().find(|kind| kind.payload.name == name && !kind.payload.fields.is_empty()) else {
            continue;
        };
        write!(text, "\n### {name}\n\n{}\n\n", kind.payload.about.trim()).expect("a text");
        for field in kind.payload.fields {
            let about = if field.about.is_empty() { String::new() } else { format!(". {}", field.about.trim()) };
            writeln!(text, "- `{}`: {}{about}", field.name, spelt(&field.shape)).expect("a text");
        }
    }
    text
}

#[test]
fn docs_events_says_what_the_table_says() {
    let text = written();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(FILE, &text).expect("the file is written");
    }
    let there = std::fs::read_to_string(FILE).unwrap_or_default();
    assert_eq!(there, text, "docs/EVENTS.md is not what the table says; run `make states`");
}
