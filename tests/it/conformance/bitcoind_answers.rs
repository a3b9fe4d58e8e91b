//! What the adapter makes of answers that no sound bitcoind gives, or seldom.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid, WPubkeyHash, Witness};
use serde_json::{Value, json};
use sluice::chain::bitcoind::{Bitcoind, Config};
use sluice::chain::fake::FakeChain;
use sluice::money::{FeeRate, Sat};
use sluice::ports::PortError;
use sluice::ports::chain::{BroadcastOutcome, ChainBackend};
use sluice::secret::Secret;

use crate::harness::canned::{Canned, CannedServer};

const PASSWORD: &str = "hunter2-never-shown";
const TIMEOUT: Duration = Duration::from_millis(3_000);

fn config(url: &str) -> Config {
    Config {
        url: url.to_owned(),
        user: Some("sluice".to_owned()),
        password: Some(Secret::new(PASSWORD.to_owned())),
        timeout_ms: u64::try_from(TIMEOUT.as_millis()).unwrap(),
        ..Config::default()
    }
}

async fn canned(script: impl Fn(&str, &Value) -> Canned + Send + Sync + 'static) -> (CannedServer, Bitcoind) {
    let server = CannedServer::start(script).await;
    let adapter = Bitcoind::new(&config(&server.url)).unwrap();
    (server, adapter)
}

/// An adapter to a server that gives this answer to everything.
async fn always(status: u16, body: &str) -> (CannedServer, Bitcoind) {
    let body = body.to_owned();
    canned(move |_, _| Canned::Raw(status, body.clone())).await
}

fn is_unreachable<T>(answer: &Result<T, PortError>) -> bool {
    matches!(answer, Err(PortError::Unreachable { .. }))
}

fn is_nonsense<T>(answer: &Result<T, PortError>) -> bool {
    matches!(answer, Err(PortError::Nonsense { .. }))
}

fn is_misconfigured<T>(answer: &Result<T, PortError>) -> bool {
    matches!(answer, Err(PortError::Misconfigured { .. }))
}

fn chain_info(hash: BlockHash, height: u32) -> Value {
    json!({ "blocks": height, "bestblockhash": hash, "initialblockdownload": false })
}

#[tokio::test]
async fn a_fee_rate_has_to_be_believable() {
    for bad in ["\"NaN\"", "NaN", "0", "-1", "-0.00001", "1e400", "5.0", "\"0.0001\"", "true", "{}"] {
        let (_server, adapter) =
            always(200, &format!(r#"{{"result":{{"feerate":{bad},"blocks":2}},"error":null,"id":0}}"#)).await;
        let answer = adapter.fee_rate(6).await;
        assert!(is_nonsense(&answer), "{bad}: {answer:?}");
    }
    let (_server, adapter) = canned(|_, _| Canned::Result(json!({ "feerate": 0.000_123_45, "blocks": 6 }))).await;
    assert_eq!(adapter.fee_rate(6).await, Ok(Some(FeeRate::from_milli_sat_per_vb(12_345))));
    let (_server, adapter) =
        canned(|_, _| Canned::Result(json!({ "errors": ["Insufficient data"], "blocks": 0 }))).await;
    assert_eq!(adapter.fee_rate(6).await, Ok(None));
}

#[tokio::test]
async fn an_error_without_an_rpc_answer_is_no_answer() {
    let warming = r#"{"result":null,"error":{"code":-28,"message":"Loading block index..."},"id":null}"#;
    let empty_success = r#"{"result":null,"error":null,"id":0}"#;
    for (status, body) in [
        (500, ""),
        (500, "<h1>Internal Server Error</h1>"),
        (503, "Work queue depth exceeded"),
        (502, "{}"),
        (500, warming),
        (500, empty_success),
    ] {
        let (_server, adapter) = always(status, body).await;
        let single = adapter.fee_rate(6).await;
        assert!(is_unreachable(&single), "{status} {body}: {single:?}");
        let batch = adapter.info().await;
        assert!(is_unreachable(&batch), "{status} {body}: {batch:?}");
    }
}

#[tokio::test]
async fn another_service_is_no_bitcoind() {
    for status in [301, 400, 401, 403, 404] {
        let (_server, adapter) = always(status, "not here").await;
        let answer = adapter.info().await;
        assert!(is_misconfigured(&answer), "{status}: {answer:?}");
    }
    let (_server, adapter) = canned(|_, _| Canned::Error(-32601, "Method not found")).await;
    assert!(is_misconfigured(&adapter.info().await));
}

#[tokio::test]
async fn an_answer_has_to_be_the_one_to_the_question() {
    for body in [
        "hello",
        "[]",
        "null",
        r#"{"result":null,"error":null}"#,
        r#"{"result":{"feerate":0.0001},"error":null,"id":7}"#,
        r#"[{"result":1,"error":null,"id":0}]"#,
        r#"[{"result":1,"error":null,"id":1},{"result":1,"error":null,"id":0}]"#,
        "\u{fffd}",
    ] {
        let (_server, adapter) = always(200, body).await;
        let (single, batch) = (adapter.fee_rate(6).await, adapter.info().await);
        assert!(is_nonsense(&single) && is_nonsense(&batch), "{body}: {single:?} {batch:?}");
    }
    let good = r#"{"result":{},"error":null,"id":0}"#;
    let (_server, adapter) = always(200, good).await;
    assert_eq!(adapter.fee_rate(6).await, Ok(None));
    let (_server, adapter) = always(200, &format!("{good}{}", " ".repeat(64 << 20))).await;
    assert!(is_nonsense(&adapter.fee_rate(6).await), "more than anybody wants to read");

    let hash = BlockHash::all_zeros();
    let answer = |id: u64, result: Value| json!({ "result": result, "error": null, "id": id });
    let mut answers = vec![answer(0, chain_info(hash, 9)), answer(1, json!(hash))];
    let (_server, adapter) = always(200, &json!(answers).to_string()).await;
    assert!(adapter.info().await.is_ok());
    answers.push(answer(2, json!(hash)));
    let (_server, adapter) = always(200, &json!(answers).to_string()).await;
    assert!(is_nonsense(&adapter.info().await), "more answers than questions");
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let (_server, adapter) = canned(|_, _| Canned::Silence).await;
    let started = Instant::now();
    let answer = tokio::time::timeout(TIMEOUT * 3, adapter.fee_rate(6)).await.expect("it gives up by itself");
    assert!(is_unreachable(&answer));
    assert!(started.elapsed() >= TIMEOUT && started.elapsed() < TIMEOUT * 3, "{:?}", started.elapsed());
}

/// A block with a payment that has a witness, so that everything about it can be falsified.
async fn honest_block() -> Block {
    let chain = FakeChain::new();
    let mut tx = chain.build_payment(&[(script(), Sat::literal(5_000))]).unwrap();
    tx.input[0].witness = Witness::from_slice(&[[1; 64]]);
    let tip = chain.mine_with(vec![tx]).unwrap();
    chain.block(tip.hash).await.unwrap()
}

fn script() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([3; 20]))
}

type Falsify = fn(&mut Block);

async fn block_from(answer: &Block, asked: BlockHash) -> Result<Block, PortError> {
    let hex = serialize_hex(answer);
    let (_server, adapter) = canned(move |_, _| Canned::Result(json!(hex))).await;
    adapter.block(asked).await
}

#[tokio::test]
async fn a_block_has_to_be_the_one_asked_for_and_whole() {
    let honest = honest_block().await;
    let hash = honest.block_hash();
    assert_eq!(block_from(&honest, hash).await, Ok(honest.clone()));

    let falsifications: [(&str, Falsify); 7] = [
        ("another header", |block| block.header.nonce ^= 1),
        ("more money", |block| block.txdata[1].output[0].value *= 2),
        ("a transaction left out", |block| drop(block.txdata.pop())),
        ("the same merkle root with the last transaction twice", |block| block.txdata.push(block.txdata[1].clone())),
        ("more money, and no witnesses to commit to", |block| {
            for input in block.txdata.iter_mut().flat_map(|tx| &mut tx.input) {
                input.witness = Witness::new();
            }
            block.txdata[1].output[0].value *= 2;
        }),
        ("another witness", |block| block.txdata[1].input[0].witness = Witness::from_slice(&[[2; 64]])),
        ("nothing in it", |block| block.txdata.clear()),
    ];
    for (what, falsify) in falsifications {
        let mut block = honest.clone();
        falsify(&mut block);
        let answer = block_from(&block, hash).await;
        assert!(is_nonsense(&answer), "{what}: {answer:?}");
    }
    let (_server, adapter) = canned(|_, _| Canned::Result(json!("00ff"))).await;
    assert!(is_nonsense(&adapter.block(hash).await));
}

#[tokio::test]
async fn a_list_of_three_has_a_twin_of_four_with_the_same_root() {
    // With an odd number of transactions the doubled last one gives the very same merkle root (CVE-2012-2459).
    let chain = FakeChain::new();
    let txs: Vec<Transaction> =
        (0..2).map(|_| chain.build_payment(&[(script(), Sat::literal(5_000))]).unwrap()).collect();
    let tip = chain.mine_with(txs).unwrap();
    let honest = chain.block(tip.hash).await.unwrap();
    let mut twin = honest.clone();
    twin.txdata.push(honest.txdata[2].clone());
    assert_eq!(twin.compute_merkle_root(), honest.compute_merkle_root());
    assert_eq!(block_from(&honest, tip.hash).await, Ok(honest));
    assert!(is_nonsense(&block_from(&twin, tip.hash).await));
}

#[tokio::test]
async fn a_pruned_block_is_the_configurations_fault() {
    let (_server, adapter) = canned(|_, _| Canned::Error(-1, "Block not available (pruned data)")).await;
    assert!(is_misconfigured(&adapter.block(BlockHash::all_zeros()).await));
    let (_server, adapter) = canned(|method, _| match method {
        "getblockheader" => Canned::Result(json!({ "confirmations": 9 })),
        _ => Canned::Error(-1, "Block not available"),
    })
    .await;
    assert_eq!(adapter.confirmed_transaction(Txid::all_zeros(), BlockHash::all_zeros()).await, Ok(None));
}

#[tokio::test]
async fn a_transaction_has_to_have_the_id_asked_for() {
    let tx = honest_block().await.txdata.remove(1);
    let hex = serialize_hex(&tx);
    let (_server, adapter) = canned(move |method, _| match method {
        "getindexinfo" => Canned::Result(json!({})),
        "getblockheader" => Canned::Result(json!({ "confirmations": 1 })),
        _ => Canned::Result(json!(hex)),
    })
    .await;
    assert_eq!(adapter.mempool_transactions(&[tx.compute_txid()]).await, Ok(vec![Some(tx.clone())]));
    assert!(is_nonsense(&adapter.mempool_transactions(&[Txid::all_zeros()]).await));
    assert!(is_nonsense(&adapter.confirmed_transaction(Txid::all_zeros(), BlockHash::all_zeros()).await));
}

/// A server whose tip moves in the middle of the first `moves` questions.
async fn restless(moves: u32) -> (CannedServer, Bitcoind) {
    let asked = AtomicU32::new(0);
    canned(move |method, _| {
        let hash = |n: u32| BlockHash::from_byte_array([u8::try_from(n).unwrap(); 32]);
        match method {
            "getblockchaininfo" => {
                let n = asked.load(Ordering::SeqCst);
                Canned::Result(chain_info(hash(n), n))
            }
            "getbestblockhash" => {
                let n = asked.fetch_add(1, Ordering::SeqCst);
                Canned::Result(json!(hash(if n < moves { n + 1 } else { n })))
            }
            "getrawmempool" => Canned::Result(json!([])),
            "gettxout" => Canned::Result(json!({ "bestblock": hash(asked.load(Ordering::SeqCst)) })),
            other => panic!("nobody should ask {other}"),
        }
    })
    .await
}

#[tokio::test]
async fn one_answer_belongs_to_one_tip() {
    let output = OutPoint { txid: Txid::all_zeros(), vout: 0 };
    let (_server, adapter) = restless(2).await;
    assert_eq!(adapter.mempool().await.unwrap().tip.height, 2, "asked again until the tip stood still");
    let (_server, adapter) = restless(2).await;
    let (tip, unspent) = adapter.still_unspent(&[output]).await.unwrap();
    assert_eq!((tip.height, unspent.len()), (2, 1));

    let (_server, adapter) = restless(100).await;
    assert!(is_unreachable(&adapter.mempool().await));
    assert!(is_unreachable(&adapter.still_unspent(&[output]).await));
}

#[tokio::test]
async fn an_output_seen_at_another_tip_is_not_counted() {
    let (_server, adapter) = canned(|method, _| match method {
        "getblockchaininfo" => Canned::Result(chain_info(BlockHash::all_zeros(), 1)),
        "getbestblockhash" => Canned::Result(json!(BlockHash::all_zeros())),
        _ => Canned::Result(json!({ "bestblock": BlockHash::from_byte_array([1; 32]) })),
    })
    .await;
    assert!(is_unreachable(&adapter.still_unspent(&[OutPoint { txid: Txid::all_zeros(), vout: 0 }]).await));
}

/// What the adapter says when `sendrawtransaction` is answered like this, and the look-ups after it like that.
async fn offered(no: (i64, &'static str), look_up: fn(&str) -> Canned) -> Result<BroadcastOutcome, PortError> {
    let (_server, adapter) = canned(move |method, _| match method {
        "sendrawtransaction" => Canned::Error(no.0, no.1),
        other => look_up(other),
    })
    .await;
    adapter.broadcast(&honest_block().await.txdata[1]).await
}

fn nowhere(method: &str) -> Canned {
    if method == "gettxout" { Canned::Result(Value::Null) } else { Canned::Error(-5, "not found") }
}

#[tokio::test]
async fn every_no_to_a_transaction_has_its_meaning() {
    let refused = |reason: &str| Ok(BroadcastOutcome::Refused { reason: reason.to_owned() });
    let missing = (-25, "bad-txns-inputs-missingorspent");
    let known = (-26, "txn-already-known");

    assert_eq!(offered((-27, "Transaction outputs already in utxo set"), nowhere).await, Ok(BroadcastOutcome::InChain));
    assert_eq!(offered((-26, "txn-already-in-mempool"), nowhere).await, Ok(BroadcastOutcome::InMempool));
    assert_eq!(offered((-26, "min relay fee not met"), nowhere).await, refused("min relay fee not met"));
    assert_eq!(offered((-22, "TX decode failed"), nowhere).await, refused("TX decode failed"));
    assert_eq!(offered((-25, "max fee exceeded"), nowhere).await, refused("max fee exceeded"));
    assert_eq!(offered(missing, nowhere).await, refused(missing.1));
    assert_eq!(offered(known, nowhere).await, refused(known.1));
    assert!(is_unreachable(&offered((-28, "Loading wallet"), nowhere).await));
    assert!(is_nonsense(&offered((-1, "whatever"), nowhere).await), "not about the transaction");
}

#[tokio::test]
async fn missing_inputs_may_be_our_own_doing() {
    let missing = (-25, "bad-txns-inputs-missingorspent");
    let waiting = offered(missing, |method| match method {
        "getmempoolentry" => Canned::Result(json!({})),
        other => nowhere(other),
    });
    assert_eq!(waiting.await, Ok(BroadcastOutcome::InMempool));
    let indexed = offered(missing, |method| match method {
        "getrawtransaction" => Canned::Result(json!({ "confirmations": 3 })),
        other => nowhere(other),
    });
    assert_eq!(indexed.await, Ok(BroadcastOutcome::InChain));
    let unspent = offered(missing, |method| match method {
        "gettxout" => Canned::Result(json!({ "bestblock": BlockHash::all_zeros() })),
        other => nowhere(other),
    });
    assert_eq!(unspent.await, Ok(BroadcastOutcome::InChain));
    let cut_off = offered(missing, |_| Canned::Raw(500, String::new()));
    assert!(is_unreachable(&cut_off.await), "nobody knows");
}

#[tokio::test]
async fn a_yes_to_another_transaction_is_no_yes() {
    let (_server, adapter) = canned(|_, _| Canned::Result(json!(Txid::all_zeros()))).await;
    assert!(is_nonsense(&adapter.broadcast(&honest_block().await.txdata[1]).await));
}

fn found(script: &ScriptBuf, amount: f64, success: bool) -> Value {
    let coin = json!({
        "txid": Txid::all_zeros(), "vout": 1, "scriptPubKey": script, "amount": amount, "height": 5, "coinbase": false,
    });
    json!({ "success": success, "height": 9, "bestblock": BlockHash::all_zeros(), "unspents": [coin] })
}

/// A server that answers a scan of [`script`] like this.
async fn scan_of(result: Value) -> Result<sluice::ports::chain::Scan, PortError> {
    let (_server, adapter) = canned(move |method, _| match method {
        "scantxoutset" => Canned::Result(result.clone()),
        "getblockhash" => Canned::Result(json!(BlockHash::all_zeros())),
        _ => Canned::Result(chain_info(BlockHash::all_zeros(), 9)),
    })
    .await;
    adapter.scan(&[script()]).await
}

#[tokio::test]
async fn a_scan_has_to_be_whole_and_about_what_was_asked() {
    let scan = scan_of(found(&script(), 0.1, true)).await.unwrap();
    assert_eq!((scan.tip.height, scan.coins[0].amount), (9, Sat::literal(10_000_000)));
    assert_eq!(scan.coins[0].script, script());
    let most = scan_of(found(&script(), 20_999_999.999_999_99, true)).await.unwrap();
    assert_eq!(most.coins[0].amount, Sat::literal(Sat::MAX.to_u64() - 1), "to the last satoshi");

    assert!(is_unreachable(&scan_of(found(&script(), 0.1, false)).await), "somebody aborted it");
    assert!(is_nonsense(&scan_of(found(&ScriptBuf::new(), 0.1, true)).await), "a script of somebody else");
    assert!(is_nonsense(&scan_of(found(&script(), 21_000_001.0, true)).await));
    assert!(is_nonsense(&scan_of(found(&script(), -0.1, true)).await));
    assert!(is_nonsense(&scan_of(found(&script(), 0.000_000_001, true)).await));
}

#[tokio::test]
async fn a_scan_left_behind_is_aborted() {
    let log = std::sync::Arc::new(Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&log);
    let (_server, adapter) = canned(move |method, params| {
        let mut log = log.lock().unwrap();
        match (method, params[0].as_str()) {
            ("scantxoutset", Some("start")) => {
                log.push("start");
                // It takes until after the second abort for the old one to end.
                if log.iter().filter(|said| **said == "abort").count() < 2 {
                    Canned::Error(-8, "Scan already in progress, use action \"abort\" or \"status\"")
                } else {
                    Canned::Result(found(&script(), 0.1, true))
                }
            }
            ("scantxoutset", _) => {
                log.push("abort");
                Canned::Result(json!(true))
            }
            ("getblockhash", _) => Canned::Result(json!(BlockHash::all_zeros())),
            _ => Canned::Result(chain_info(BlockHash::all_zeros(), 9)),
        }
    })
    .await;
    assert_eq!(adapter.scan(&[script()]).await.unwrap().coins.len(), 1);
    assert_eq!(*seen.lock().unwrap(), ["start", "abort", "start", "abort", "start"]);
}

#[test]
fn a_configuration_is_checked_before_it_is_used() {
    let good = config("http://127.0.0.1:1");
    assert!(Bitcoind::new(&good).is_ok());
    for url in ["", "127.0.0.1:8332", "ftp://node", "http://", "http://me:hunter2-never-shown@node", "http://me@node"] {
        let error = Bitcoind::new(&Config { url: url.to_owned(), ..good.clone() }).err();
        assert!(matches!(error, Some(PortError::Misconfigured { .. })), "{url}: {error:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    let both = Config { cookie_file: Some("cookie".into()), ..good.clone() };
    let neither = Config { user: None, password: None, ..good.clone() };
    let half = Config { password: None, ..good };
    for bad in [both, neither, half] {
        assert!(is_misconfigured(&Bitcoind::new(&bad)), "{bad:?}");
    }
    assert!(toml::from_str::<Config>("adress = 'x'").is_err(), "an unknown key");
}

#[tokio::test]
async fn the_password_is_never_shown() {
    let config = config("http://127.0.0.1:1");
    let mut shown = format!("{config:?} {}", toml::to_string(&config).unwrap());
    shown += &format!("{:?}", Bitcoind::new(&config).unwrap().info().await);
    for status in [200, 401, 403, 404, 500] {
        let (_server, adapter) = always(status, "?").await;
        shown += &format!("{:?} {:?}", adapter.info().await, adapter.fee_rate(1).await);
    }
    assert!(shown.contains("***") && shown.contains("Unreachable") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_cookie_that_is_missing_or_unfinished_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".cookie");
    let (server, _) = canned(|_, _| Canned::Result(json!({ "blocks": 1 }))).await;
    let config = Config { url: server.url.clone(), cookie_file: Some(file.clone()), ..Config::default() };
    let adapter = Bitcoind::new(&config).unwrap();
    assert!(is_unreachable(&adapter.fee_rate(1).await), "bitcoind is not started yet");
    std::fs::write(&file, "").unwrap();
    assert!(is_unreachable(&adapter.fee_rate(1).await), "it is just being written");
    std::fs::write(&file, "__cookie__:abc\n").unwrap();
    assert_eq!(adapter.fee_rate(1).await, Ok(None));
}
