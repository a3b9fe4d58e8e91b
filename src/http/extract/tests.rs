use super::*;
use crate::money::Sat;
use axum::body::Body;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Sample {
    amount_sats: Sat,
    fee_rate: Option<u32>,
}

fn refused(body: &str) -> Problem {
    parse_json::<Sample>(body.as_bytes()).expect_err(body)
}

#[test]
fn amounts_are_integers_and_nothing_else() {
    let parsed: Sample = parse_json(br#"{"amount_sats": 1000, "unknown": [1]}"#).unwrap();
    assert_eq!((parsed.amount_sats, parsed.fee_rate), (Sat::literal(1_000), None));
    for wrong in [
        "1e3",
        "1000.5",
        "1000.",
        "1000.0.0",
        "1.0e3",
        "-1.0",
        "0.5",
        "true",
        "null",
        "-1",
        "\"1000\"",
        "9223372036854775808",
        "1e400",
        "[]",
        "{}",
    ] {
        let problem = refused(&format!(r#"{{"amount_sats": {wrong}}}"#));
        assert_eq!(problem.code, Code::InvalidRequest, "{wrong}");
        assert_eq!(problem.field.as_deref(), Some("amount_sats"), "{wrong}: {}", problem.detail);
    }
    assert_eq!(refused(r#"{"amount_sats": 1, "fee_rate": 4294967296}"#).field.as_deref(), Some("fee_rate"));
}

#[test]
fn an_integer_may_be_written_with_zeros_behind_a_point() {
    let parsed: Sample = parse_json(br#"{"a\\\".0": "5.0 \"6.0", "amount_sats": 80.0,"fee_rate":7.00}"#).unwrap();
    assert_eq!((parsed.amount_sats, parsed.fee_rate), (Sat::literal(80), Some(7)));
    let text = br#"{"reference": "80.0", "more": [1.0, "2.0"]}"#;
    assert_eq!(*whole_numbers(text), *br#"{"reference": "80.0", "more": [1, "2.0"]}"#);
    assert_eq!(refused(r#"{"amount_sats": 80.0, "amount_sats": 1}"#).field.as_deref(), Some("amount_sats"));
}

#[test]
fn missing_and_repeated_fields_are_named() {
    assert_eq!(refused("{}").field.as_deref(), Some("amount_sats"));
    assert_eq!(refused(r#"{"amount_sats": 1, "amount_sats": 2}"#).field.as_deref(), Some("amount_sats"));
}

#[test]
fn a_body_is_one_json_object() {
    for wrong in ["", "[1, 2]", "\"x\"", "{", "{\"amount_sats\": 1} {}", "\u{feff}{}"] {
        assert_eq!(refused(wrong).code, Code::InvalidRequest, "{wrong}");
    }
    let not_text = parse_json::<Sample>(b"{\"amount_sats\": 1, \"unknown\": \"\xff\"}").unwrap_err();
    assert_eq!(not_text.code, Code::InvalidRequest);
    let deep = format!("{{\"x\": {}", "[".repeat(100_000));
    assert_eq!(refused(&deep).code, Code::InvalidRequest);
}

#[test]
fn a_long_wrong_value_is_not_repeated_whole() {
    let problem = refused(&format!(r#"{{"amount_sats": "{}"}}"#, "x".repeat(10_000)));
    assert!(problem.detail.len() < 400);
}

fn post(path: &str, body: Body) -> Request {
    Request::builder().method("POST").uri(path).body(body).unwrap()
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_read_whole() {
    let request = Request::builder().uri("/x").header("content-length", "70000").body(Body::empty()).unwrap();
    assert_eq!(read(request).await.unwrap_err().code, Code::BodyTooLarge);
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 1024])));
    assert_eq!(read(post("/x", Body::from_stream(endless))).await.unwrap_err().code, Code::BodyTooLarge);
    let signed = read(post("/lightning/onchain-send-end", Body::from(vec![b' '; 70_000]))).await.unwrap();
    assert_eq!(signed.0.len(), 70_000);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
    assert_eq!(
        read_within(post("/x", Body::from_stream(never)), Duration::from_millis(20)).await.unwrap_err().code,
        Code::InvalidRequest
    );
}

#[tokio::test]
async fn an_idempotency_key_is_tied_to_method_path_and_body() {
    let read = async |path: &str, body: &'static str, key: &str| {
        let mut request = post(path, Body::from(body));
        request.headers_mut().append(IDEMPOTENCY_HEADER, key.parse().unwrap());
        super::read(request).await.map(|(_, idempotency)| idempotency.unwrap())
    };
    let first = read("/a", "{}", "k").await.unwrap();
    assert_eq!(first, read("/a", "{}", "k").await.unwrap());
    assert_ne!(first.body_hash, read("/b", "{}", "k").await.unwrap().body_hash);
    let is_same = async |a: &'static str, b: &'static str| {
        read("/a", a, "k").await.unwrap().body_hash.is_of_same_call(&read("/a", b, "k").await.unwrap().body_hash)
    };
    assert!(is_same("{}", "{ }").await);
    assert!(
        is_same(r#"{"b": [1, {"d": 2, "c": "\u0041"}], "a": null}"#, r#"{"a":null,"b":[1,{"c":"A","d":2}]}"#).await
    );
    assert!(!is_same(r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#).await, "the order of a list says something");
    assert!(!is_same(r#"{"a":1}"#, r#"{"a":"1"}"#).await);
    assert!(!is_same("", "{}").await);
    assert_eq!(read("/a", "{}", "").await.unwrap_err().field.as_deref(), Some("Idempotency-Key"));
    assert!(read("/a", "{}", &"k".repeat(256)).await.is_err());
    let mut twice = post("/a", Body::empty());
    for key in ["a", "b"] {
        twice.headers_mut().append(IDEMPOTENCY_HEADER, key.parse().unwrap());
    }
    assert!(super::read(twice).await.is_err());
}

#[test]
fn a_query_that_is_wrong_names_its_parameter() {
    #[derive(Debug, Deserialize)]
    struct Page {
        limit: Option<u32>,
    }
    let parse = |query: &str| parse_query::<Page>(&format!("/x?{query}").parse().unwrap());
    assert_eq!(parse("limit=5&other=1").unwrap().limit, Some(5));
    assert_eq!(parse("limit=-1").unwrap_err().field.as_deref(), Some("limit"));
    assert_eq!(parse("limit=1&limit=2").unwrap_err().field.as_deref(), Some("limit"));
    assert!(limit(Some(0), 50).is_err() && limit(Some(501), 50).is_err());
    assert_eq!(limit(None, 50), Ok(50));
}

#[test]
fn a_cursor_is_read_back_and_a_forged_one_is_refused() {
    let id = RequestId::fresh();
    let at = Timestamp::from_millis(-5);
    let word = cursor(at, &id.to_string());
    assert_eq!(read_page(Some(&word)), Ok(Some(PageAfter { created_at: at, id })));
    assert_eq!(read_page(Some("")), Ok(None));
    for forged in ["!!", "MTIz", "LTUuLi4v"] {
        assert_eq!(read_page(Some(forged)).unwrap_err().field.as_deref(), Some("cursor"), "{forged}");
    }
}

#[test]
fn one_id_has_one_spelling() {
    let id = RequestId::fresh().to_string();
    assert!(request_id(&id).is_some());
    assert!(request_id(&id.to_uppercase()).is_none() || id.chars().all(|c| !c.is_ascii_lowercase()));
    assert!(request_id(&id.replace('-', "")).is_none());
    assert!(request_id(&format!("{{{id}}}")).is_none());
}
