//! The Esplora of a private chain, asked by the clients that it is for: a BDK wallet, and the client below it and rgb-lib.

use std::collections::HashSet;
use std::sync::Arc;

use bdk_esplora::EsploraExt;
use bdk_esplora::esplora_client::{Error, OutputStatus, Tx};
use bdk_wallet::{KeychainKind, SignOptions, Wallet};
use bitcoin::bip32::Xpriv;
use bitcoin::hashes::Hash;
use bitcoin::{Address, Amount, FeeRate, Network, OutPoint, ScriptBuf, Transaction, Txid, WPubkeyHash};
use serde_json::{Value, json};
use sluice::chain::fake::FakeChain;
use sluice::money::Sat;

use crate::harness::bitcoind::{Bitcoind, address};
use crate::harness::esplora::Esplora;

const AMOUNT: Sat = Sat::literal(100_000);
/// What a wallet sends on.
const PART: Amount = Amount::from_sat(40_000);
/// As rgb-lib asks.
const STOP_GAP: usize = 20;
const PARALLEL: usize = 5;
const CONFIRMED_A_PAGE: usize = 25;
const WAITING_AT_MOST: usize = 50;

/// A node, its indexer, and a wallet that knows of the chain only what the indexer tells.
struct Scene {
    node: Bitcoind,
    esplora: Esplora,
    wallet: Wallet,
    /// The wallet's clock: it believes the later of two sightings.
    now: u64,
}

impl Scene {
    async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    async fn start_with(options: &[&str]) -> Option<Self> {
        let node = Bitcoind::start_with(options).await?;
        let esplora = Esplora::start(&node).await;
        Some(Self { node, esplora, wallet: wallet(), now: 1_800_000_000 })
    }

    fn address(&mut self) -> Address {
        self.wallet.reveal_next_address(KeychainKind::External).address
    }

    /// Looks at every script that may be the wallet's.
    async fn scan(&mut self) {
        self.now += 1;
        let request = self.wallet.start_full_scan_at(self.now).build();
        let found = self.esplora.ask(move |client| client.full_scan(request, STOP_GAP, PARALLEL)).await;
        self.wallet.apply_update(found.expect("a full scan")).expect("one chain");
    }

    /// Looks at the scripts that were handed out.
    async fn sync(&mut self) {
        self.now += 1;
        let request = self.wallet.start_sync_with_revealed_spks_at(self.now).build();
        let found = self.esplora.ask(move |client| client.sync(request, PARALLEL)).await;
        self.wallet.apply_update(found.expect("a sync")).expect("one chain");
    }

    /// Confirmed, and on its way in.
    fn balance(&self) -> (u64, u64) {
        let balance = self.wallet.balance();
        (balance.confirmed.to_sat(), (balance.trusted_pending + balance.untrusted_pending).to_sat())
    }

    /// A signed payment of the wallet to a stranger, which nobody has seen yet.
    fn spend(&mut self, fee: Fee) -> Transaction {
        let mut builder = self.wallet.build_tx();
        builder.add_recipient(stranger(1), PART);
        match fee {
            Fee::Good => builder.fee_rate(FeeRate::from_sat_per_vb_u32(2)),
            Fee::None => builder.fee_absolute(Amount::ZERO),
        };
        let mut psbt = builder.finish().expect("the wallet has coins");
        assert!(self.wallet.sign(&mut psbt, SignOptions::default()).expect("it signs"));
        psbt.extract_tx().expect("a sane fee")
    }

    async fn broadcast(&self, transaction: &Transaction) -> Result<(), Error> {
        let transaction = transaction.clone();
        self.esplora.ask(move |client| client.broadcast(&transaction)).await
    }

    async fn status(&self, txid: Txid) -> Option<u32> {
        self.esplora.ask(move |client| client.get_tx_status(&txid)).await.expect("a status").block_height
    }

    async fn outspend(&self, coin: OutPoint) -> OutputStatus {
        let answer = self.esplora.ask(move |client| client.get_output_status(&coin.txid, coin.vout.into())).await;
        answer.expect("an answer").expect("there is always one")
    }

    async fn known(&self, txid: Txid) -> bool {
        self.esplora.ask(move |client| client.get_tx(&txid)).await.expect("an answer").is_some()
    }
}

enum Fee {
    Good,
    None,
}

fn wallet() -> Wallet {
    let key = Xpriv::new_master(Network::Regtest, &[7; 32]).expect("a key");
    let [receive, change] = [0, 1].map(|keychain| format!("tr({key}/86'/1'/0'/{keychain}/*)"));
    Wallet::create(receive, change).network(Network::Regtest).create_wallet_no_persist().expect("a wallet")
}

fn stranger(n: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([n; 20]))
}

/// The text of a refusal, which has to be one of HTTP 400.
fn refusal(answer: Result<(), Error>) -> String {
    match answer {
        Err(Error::HttpResponse { status: 400, message }) => message,
        other => panic!("not refused: {other:?}"),
    }
}

fn is_status<T: std::fmt::Debug>(answer: &Result<T, Error>, wanted: u16) -> bool {
    matches!(answer, Err(Error::HttpResponse { status, .. }) if *status == wanted)
}

#[tokio::test]
async fn a_wallet_finds_its_coins_and_what_it_spent() {
    let Some(mut scene) = Scene::start().await else { return };
    let amount = AMOUNT.to_u64();
    // Not the first address, which a scan has to go on to.
    let to = (0..10).map(|_| scene.address()).last().expect("ten");
    scene.wallet = wallet();
    scene.node.pay(&to, AMOUNT).await;
    scene.scan().await;
    assert_eq!(scene.balance(), (0, amount), "it waits");
    let home = scene.node.mine(1).await;
    scene.sync().await;
    assert_eq!(scene.balance(), (amount, 0));
    assert_eq!(scene.wallet.latest_checkpoint().hash(), home.hash);

    let spend = scene.spend(Fee::Good);
    let (txid, coin) = (spend.compute_txid(), spend.input[0].previous_output);
    let fee = scene.wallet.calculate_fee(&spend).expect("its own coins").to_sat();
    let left = amount - PART.to_sat() - fee;
    scene.broadcast(&spend).await.expect("it is taken");
    scene.sync().await;
    assert_eq!(scene.balance(), (0, left), "the change waits");
    let spent = scene.outspend(coin).await;
    assert_eq!((spent.spent, spent.txid, spent.vin), (true, Some(txid), Some(0)));
    assert_eq!(spent.status.and_then(|status| status.block_height), None);

    let home = scene.node.mine(1).await;
    scene.sync().await;
    assert_eq!(scene.balance(), (left, 0));
    let spent = scene.outspend(coin).await;
    assert_eq!(spent.status.and_then(|status| status.block_hash), Some(home.hash));
    let unspent = scene.outspend(OutPoint { vout: 99, ..coin }).await;
    assert!(!unspent.spent && unspent.txid.is_none());
    let all = scene.esplora.ask(move |client| client.get_tx_outspends(&coin.txid)).await.unwrap();
    assert_eq!(all.iter().filter(|output| output.txid == Some(txid)).count(), 1);

    scene.wallet = wallet();
    scene.scan().await;
    assert_eq!(scene.balance(), (left, 0), "a wallet that knew nothing finds the same");
    assert_eq!(scene.wallet.transactions().count(), 2);
}

#[tokio::test]
async fn a_script_with_many_transactions_is_told_in_pages() {
    let Some(mut scene) = Scene::start().await else { return };
    let (blocks, a_block, waiting) = (4, 15, 5);
    let to = scene.address();
    for _ in 0..blocks {
        for _ in 0..a_block {
            scene.node.pay(&to, AMOUNT).await;
        }
        scene.node.mine(1).await;
    }
    for _ in 0..waiting {
        scene.node.pay(&to, AMOUNT).await;
    }
    let script = to.script_pubkey();
    let (mut pages, mut last): (Vec<Vec<Tx>>, Option<Txid>) = (Vec::new(), None);
    loop {
        let script = script.clone();
        let page = scene.esplora.ask(move |client| client.scripthash_txs(&script, last)).await.unwrap();
        last = page.last().map(|tx| tx.txid);
        if page.is_empty() {
            break;
        }
        pages.push(page);
    }
    let sizes: Vec<usize> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes, [waiting + CONFIRMED_A_PAGE, CONFIRMED_A_PAGE, blocks * a_block - 2 * CONFIRMED_A_PAGE]);
    let all: Vec<Tx> = pages.into_iter().flatten().collect();
    let distinct: HashSet<Txid> = all.iter().map(|tx| tx.txid).collect();
    assert_eq!(distinct.len(), blocks * a_block + waiting);
    assert!(all[..waiting].iter().all(|tx| !tx.status.confirmed), "what waits comes first");
    assert!(all[waiting..].is_sorted_by_key(|tx| std::cmp::Reverse(tx.status.block_height)), "then the newest");

    scene.scan().await;
    let sat = |count: usize| AMOUNT.to_u64() * u64::try_from(count).unwrap();
    assert_eq!(scene.balance(), (sat(blocks * a_block), sat(waiting)), "the wallet has read every page");
}

#[tokio::test]
async fn at_most_fifty_that_wait_are_told() {
    let chain = Arc::new(FakeChain::new());
    chain.mine(60);
    for _ in 0..=WAITING_AT_MOST {
        chain.pay(&stranger(1), AMOUNT).expect("the fake pays");
    }
    let esplora = Esplora::over(chain).await;
    let page = esplora.ask(|client| client.scripthash_txs(&stranger(1), None)).await.unwrap();
    assert_eq!(page.len(), WAITING_AT_MOST);
    let last = page.last().map(|tx| tx.txid);
    let next = esplora.ask(move |client| client.scripthash_txs(&stranger(1), last)).await.unwrap();
    assert_eq!(next, [], "and nothing in a block comes after what waits");
}

#[tokio::test]
async fn a_coin_follows_its_transaction_through_a_reorganisation() {
    let Some(mut scene) = Scene::start().await else { return };
    let to = scene.address();
    let txid = scene.node.pay(&to, AMOUNT).await;
    let home = scene.node.mine(1).await;
    scene.node.mine(1).await;
    scene.sync().await;
    assert_eq!(scene.balance(), (AMOUNT.to_u64(), 0));

    let tip = scene.node.reorg(2, false).await;
    scene.sync().await;
    assert_eq!(scene.balance(), (0, AMOUNT.to_u64()), "it waits again");
    assert_eq!((scene.status(txid).await, scene.known(txid).await), (None, true));
    let lost = scene.esplora.ask(move |client| client.get_block_status(&home.hash)).await.unwrap();
    assert_eq!((lost.in_best_chain, lost.height, lost.next_best), (false, None, None));
    assert_eq!(scene.wallet.latest_checkpoint().hash(), tip.hash);

    let home = scene.node.mine(1).await;
    scene.sync().await;
    assert_eq!(scene.balance(), (AMOUNT.to_u64(), 0));
    assert_eq!(scene.status(txid).await, Some(home.height));

    scene.node.reorg(1, true).await;
    scene.sync().await;
    assert_eq!((scene.balance(), scene.status(txid).await), ((AMOUNT.to_u64(), 0), Some(home.height)), "mined again");
}

#[tokio::test]
async fn a_transaction_that_another_branch_contradicts_is_gone() {
    let Some(mut scene) = Scene::start().await else { return };
    let (to, other) = (scene.address(), scene.address());
    let payment = scene.node.unsent_payment(&to, AMOUNT).await;
    // To the wallet, too: of a rival that doesn't concern it, no indexer tells it, and BDK goes on hoping for the payment.
    let rival = scene.node.rival(&payment, &other.script_pubkey()).await;
    let txid = payment.compute_txid();
    let home = scene.node.mine_with(std::slice::from_ref(&payment)).await;
    scene.sync().await;
    assert_eq!(scene.balance(), (AMOUNT.to_u64(), 0));

    scene.node.invalidate_block(home.hash).await;
    scene.node.mine_with(std::slice::from_ref(&rival)).await;
    scene.node.mine(1).await;
    scene.sync().await;
    assert_eq!(scene.balance(), (AMOUNT.to_u64(), 0), "one of the two counts");
    let coins: Vec<OutPoint> = scene.wallet.list_unspent().map(|coin| coin.outpoint).collect();
    assert_eq!(coins, [OutPoint { txid: rival.compute_txid(), vout: 0 }]);
    let script = to.script_pubkey();
    assert_eq!(scene.esplora.ask(move |client| client.scripthash_txs(&script, None)).await.unwrap(), []);
    assert_eq!((scene.known(txid).await, scene.status(txid).await), (false, None));
    assert_eq!(scene.outspend(payment.input[0].previous_output).await.txid, Some(rival.compute_txid()));
}

#[tokio::test]
async fn a_replaced_payment_is_forgotten() {
    let Some(mut scene) = Scene::start().await else { return };
    let to = scene.address();
    let first = scene.node.pay(&to, AMOUNT).await;
    scene.sync().await;
    assert_eq!(scene.balance(), (0, AMOUNT.to_u64()));

    let second = scene.node.bump(first).await;
    scene.sync().await;
    assert_eq!(scene.balance(), (0, AMOUNT.to_u64()), "one of them counts");
    assert_eq!((scene.known(first).await, scene.known(second).await), (false, true));
    let home = scene.node.mine(1).await;
    scene.sync().await;
    assert_eq!((scene.balance(), scene.status(second).await), ((AMOUNT.to_u64(), 0), Some(home.height)));
}

#[tokio::test]
async fn an_evicted_spend_gives_its_coin_back() {
    let Some(mut scene) = Scene::start_with(&["-persistmempool=0"]).await else { return };
    let to = scene.address();
    scene.node.pay(&to, AMOUNT).await;
    scene.node.mine(1).await;
    scene.sync().await;
    let spend = scene.spend(Fee::Good);
    scene.broadcast(&spend).await.expect("it is taken");
    scene.sync().await;
    assert_eq!(scene.balance().0, 0, "the coin is spent");

    scene.node.restart().await;
    scene.sync().await;
    assert_eq!(scene.balance(), (AMOUNT.to_u64(), 0), "nobody knows the spend any more");
    assert!(!scene.known(spend.compute_txid()).await);
}

#[tokio::test]
async fn a_refused_broadcast_says_what_the_node_said() {
    let Some(mut scene) = Scene::start().await else { return };
    let to = scene.address();
    scene.node.pay(&to, AMOUNT).await;
    scene.node.mine(1).await;
    scene.sync().await;
    let (free, good) = (scene.spend(Fee::None), scene.spend(Fee::Good));
    let said = refusal(scene.broadcast(&free).await);
    assert!(said.contains("min relay fee not met"), "{said}");
    assert!(!scene.known(free.compute_txid()).await);

    scene.broadcast(&good).await.expect("it is taken");
    scene.broadcast(&good).await.expect("and again");
    scene.node.mine(1).await;
    let said = refusal(scene.broadcast(&free).await);
    assert!(said.contains("bad-txns-inputs-missingorspent"), "{said}");
    let said = refusal(scene.broadcast(&good).await);
    assert!(said.contains("already in utxo set"), "{said}");

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let sent = http.post(format!("{}/tx", scene.esplora.url())).body("no transaction").send().await.unwrap();
    assert_eq!(sent.status().as_u16(), 400);
}

#[tokio::test]
async fn what_is_unknown_is_said_to_be() {
    let Some(scene) = Scene::start().await else { return };
    let nobody = Txid::from_byte_array([7; 32]);
    assert!(!scene.known(nobody).await);
    assert_eq!(scene.esplora.ask(move |client| client.get_tx_info(&nobody)).await.unwrap(), None);
    // As rgb-lib needs it: it asks for the status first, and takes an error for a fault of the indexer.
    assert_eq!(scene.status(nobody).await, None);
    assert!(is_status(&scene.esplora.ask(move |client| client.get_tx_outspends(&nobody)).await, 404));
    let history = scene.esplora.ask(|client| client.scripthash_txs(&stranger(1), None)).await;
    assert_eq!(history.unwrap(), []);

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for (path, status) in [("/tx/abc", 400), ("/scripthash/abc/txs", 400), ("/block-height/x", 400), ("/mempool", 404)]
    {
        let answer = http.get(format!("{}{path}", scene.esplora.url())).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn the_tip_is_the_one_that_was_just_mined() {
    let Some(scene) = Scene::start().await else { return };
    for _ in 0..5 {
        let tip = scene.node.mine(1).await;
        let told = scene.esplora.ask(|client| (client.get_height(), client.get_tip_hash())).await;
        assert_eq!((told.0.unwrap(), told.1.unwrap()), (tip.height, tip.hash));
    }
    let tip = scene.node.tip().await;
    let hashes = scene.esplora.ask(move |client| [0, tip.height].map(|height| client.get_block_hash(height))).await;
    let [genesis, last] = hashes.map(Result::unwrap);
    assert_eq!((genesis, last), (scene.node.block_hash(0).await, tip.hash));
    assert!(is_status(&scene.esplora.ask(move |client| client.get_block_hash(tip.height + 1)).await, 404));
    assert!(is_status(&scene.esplora.ask(move |client| client.get_block_infos(Some(tip.height + 1))).await, 404));

    let statuses = scene.esplora.ask(move |client| [genesis, last].map(|hash| client.get_block_status(&hash))).await;
    let [first, last] = statuses.map(Result::unwrap);
    assert_eq!((first.height, first.next_best), (Some(0), Some(scene.node.block_hash(1).await)));
    assert_eq!((last.in_best_chain, last.height, last.next_best), (true, Some(tip.height), None));
    let fees = scene.esplora.ask(|client| client.get_fee_estimates()).await.unwrap();
    assert!(fees.contains_key(&1) && fees.contains_key(&1_008) && fees.values().all(|rate| *rate >= 1.0), "{fees:?}");
}

#[tokio::test]
async fn blocks_and_transactions_are_told_as_the_node_tells_them() {
    let Some(scene) = Scene::start().await else { return };
    let txid = scene.node.pay(&address(&stranger(1)), AMOUNT).await;
    let tip = scene.node.mine(1).await;
    let pages = scene.esplora.ask(|client| [None, Some(4)].map(|from| client.get_block_infos(from))).await;
    let [newest, oldest] = pages.map(Result::unwrap);
    assert_eq!(
        newest.iter().map(|block| block.height).collect::<Vec<_>>(),
        (tip.height - 9..=tip.height).rev().collect::<Vec<_>>()
    );
    assert_eq!(oldest.iter().map(|block| block.height).collect::<Vec<_>>(), [4, 3, 2, 1, 0]);
    for block in newest.iter().chain(&oldest) {
        let node = scene.node.rpc("getblock", json!([block.id])).await;
        let told = json!({
            "height": block.height, "version": block.version.to_consensus(), "time": block.timestamp, "nTx": block.tx_count,
            "size": block.size, "weight": block.weight, "merkleroot": block.merkle_root, "mediantime": block.mediantime,
            "nonce": block.nonce, "bits": format!("{:08x}", block.bits.to_consensus()),
        });
        for (name, value) in told.as_object().unwrap() {
            assert_eq!(&node[name], value, "{name} of block {}", block.height);
        }
        assert_eq!(
            node["previousblockhash"].as_str().map(str::to_owned),
            block.previousblockhash.map(|hash| hash.to_string())
        );
        assert!((node["difficulty"].as_f64().unwrap() / block.difficulty - 1.0).abs() < 1e-6);
    }
    let told = scene.esplora.ask(move |client| client.get_tx_info(&txid)).await.unwrap().unwrap();
    let node = scene.node.rpc("getrawtransaction", json!([txid, 2, tip.hash])).await;
    assert_eq!(told.status.block_time, node["blocktime"].as_u64());
    assert_eq!((json!(told.size), json!(told.weight)), (node["size"].clone(), node["weight"].clone()));
    assert_eq!(told.fee, sat(&node["fee"]));
    for (input, node) in told.vin.iter().zip(node["vin"].as_array().unwrap()) {
        let prevout = input.prevout.as_ref().unwrap();
        assert_eq!(prevout.value, sat(&node["prevout"]["value"]));
        assert_eq!(prevout.scriptpubkey.to_hex_string(), node["prevout"]["scriptPubKey"]["hex"]);
    }
    let raw = scene.esplora.ask(move |client| client.get_tx(&txid)).await.unwrap().unwrap();
    assert_eq!(bitcoin::consensus::encode::serialize_hex(&raw), node["hex"]);
    assert_eq!(told.to_tx(), raw);
}

fn sat(bitcoin: &Value) -> u64 {
    Amount::from_btc(bitcoin.as_f64().expect("an amount")).expect("an amount").to_sat()
}

#[tokio::test]
async fn a_node_that_is_down_is_said_to_be_and_found_again() {
    let Some(scene) = Scene::start().await else { return };
    scene.node.stop().await;
    assert!(is_status(&scene.esplora.ask(|client| client.get_height()).await, 503));
    scene.node.launch().await;
    let tip = scene.node.mine(1).await;
    assert_eq!(scene.esplora.ask(|client| client.get_height()).await.unwrap(), tip.height);
}

#[tokio::test]
async fn many_that_ask_while_the_chain_moves_see_one_chain() {
    let Some(scene) = Scene::start().await else { return };
    let txid = scene.node.pay(&address(&stranger(1)), AMOUNT).await;
    let look = || {
        scene.esplora.ask(move |client| {
            for _ in 0..40 {
                // In this order a transaction is never above the tip unless an answer was older than the one before.
                let status = client.get_tx_status(&txid).expect("a status");
                let height = client.get_height().expect("a height");
                assert!(client.get_tx(&txid).expect("an answer").is_some(), "it waits or is in a block, always");
                assert!(status.block_height.is_none_or(|mined| mined <= height + 1), "{status:?} above {height}");
            }
        })
    };
    let move_on = async {
        for _ in 0..6 {
            scene.node.mine(1).await;
            scene.node.reorg(1, false).await;
        }
    };
    tokio::join!(look(), look(), look(), move_on);
}
