//! The calls, as Esplora's API.md names them. Each answers from an index that was brought up to date for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bitcoin::consensus::encode::{deserialize_hex, serialize};
use bitcoin::{BlockHash, OutPoint, Transaction, Txid};

use super::index::{Index, Indexed, ScriptHash};
use super::reader::Reader;
use super::wire::{BlockStatus, BlockSummary, Outspend, Status, Tx};
use crate::ports::PortError;
use crate::ports::chain::BroadcastOutcome;

/// How much Esplora tells at once. What it leaves out is left out here, too: who forgets to ask on, learns it on regtest.
const BLOCKS_A_PAGE: usize = 10;
const CONFIRMED_A_PAGE: usize = 25;
const WAITING_AT_MOST: usize = 50;
/// Esplora's targets, all at what nodes relay from: on a private chain every block has room. Without an answer for a
/// target and its neighbours, rgb-lib estimates nothing.
const FEE_RATE: f64 = 1.0;
const FEE_TARGETS: [u16; 28] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 144, 504, 1_008];

type Shared = State<Arc<Reader>>;
type Answer<T> = Result<T, Refusal>;

enum Refusal {
    NotFound(&'static str),
    /// The transaction or the text of it is not good.
    Invalid(String),
    Unavailable(PortError),
}

const NO_BLOCK: Refusal = Refusal::NotFound("Block not found");
const NO_TRANSACTION: Refusal = Refusal::NotFound("Transaction not found");

impl From<PortError> for Refusal {
    fn from(error: PortError) -> Self {
        Self::Unavailable(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound(what) => (StatusCode::NOT_FOUND, what).into_response(),
            Self::Invalid(why) => (StatusCode::BAD_REQUEST, why).into_response(),
            Self::Unavailable(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
        }
    }
}

pub(super) fn router(reader: Arc<Reader>) -> Router {
    Router::new()
        .route("/blocks/tip/height", get(tip_height))
        .route("/blocks/tip/hash", get(tip_hash))
        .route("/blocks", get(last_blocks))
        .route("/blocks/{height}", get(blocks_from))
        .route("/block-height/{height}", get(block_hash))
        .route("/block/{hash}/status", get(block_status))
        .route("/tx", post(broadcast))
        .route("/tx/{txid}", get(transaction))
        .route("/tx/{txid}/raw", get(raw_transaction))
        .route("/tx/{txid}/status", get(transaction_status))
        .route("/tx/{txid}/outspend/{vout}", get(outspend))
        .route("/tx/{txid}/outspends", get(outspends))
        .route("/scripthash/{hash}/txs", get(script_history))
        .route("/scripthash/{hash}/txs/chain/{last}", get(script_history_after))
        .route("/fee-estimates", get(fee_estimates))
        .fallback(async || Refusal::NotFound("endpoint does not exist or is not supported"))
        .with_state(reader)
}

// ---- blocks ----

async fn tip_height(State(reader): Shared) -> Answer<String> {
    let index = reader.current().await?;
    let (height, _) = index.blocks_down_from(None).next().ok_or(NO_BLOCK)?;
    Ok(height.to_string())
}

async fn tip_hash(State(reader): Shared) -> Answer<String> {
    let index = reader.current().await?;
    Ok(index.tip().ok_or(NO_BLOCK)?.hash.to_string())
}

async fn block_hash(State(reader): Shared, Path(height): Path<usize>) -> Answer<String> {
    let index = reader.current().await?;
    Ok(index.block(height).ok_or(NO_BLOCK)?.hash.to_string())
}

async fn last_blocks(State(reader): Shared) -> Answer<Json<Vec<BlockSummary>>> {
    Ok(Json(summaries(&*reader.current().await?, None)))
}

async fn blocks_from(State(reader): Shared, Path(height): Path<usize>) -> Answer<Json<Vec<BlockSummary>>> {
    let index = reader.current().await?;
    index.block(height).ok_or(NO_BLOCK)?;
    Ok(Json(summaries(&index, Some(height))))
}

fn summaries(index: &Index, from: Option<usize>) -> Vec<BlockSummary> {
    let blocks = index.blocks_down_from(from).take(BLOCKS_A_PAGE);
    blocks.map(|(height, block)| BlockSummary::of(index, height, block)).collect()
}

async fn block_status(State(reader): Shared, Path(hash): Path<BlockHash>) -> Answer<Json<BlockStatus>> {
    Ok(Json(BlockStatus::of(&*reader.current().await?, &hash)))
}

// ---- transactions ----

async fn transaction(State(reader): Shared, Path(txid): Path<Txid>) -> Answer<Json<Tx>> {
    let index = reader.current().await?;
    Ok(Json(Tx::of(&index, index.transaction(&txid).ok_or(NO_TRANSACTION)?)))
}

async fn raw_transaction(State(reader): Shared, Path(txid): Path<Txid>) -> Answer<Vec<u8>> {
    let index = reader.current().await?;
    Ok(serialize(&index.transaction(&txid).ok_or(NO_TRANSACTION)?.transaction))
}

async fn transaction_status(State(reader): Shared, Path(txid): Path<Txid>) -> Answer<Json<Status>> {
    let index = reader.current().await?;
    Ok(Json(Status::of(&index, index.transaction(&txid))))
}

async fn outspend(State(reader): Shared, Path((txid, vout)): Path<(Txid, u32)>) -> Answer<Json<Outspend>> {
    Ok(Json(Outspend::of(&*reader.current().await?, &OutPoint { txid, vout })))
}

async fn outspends(State(reader): Shared, Path(txid): Path<Txid>) -> Answer<Json<Vec<Outspend>>> {
    let index = reader.current().await?;
    let found = index.transaction(&txid).ok_or(NO_TRANSACTION)?;
    let outpoints = (0..).zip(&found.transaction.output).map(|(vout, _)| OutPoint { txid, vout });
    Ok(Json(outpoints.map(|outpoint| Outspend::of(&index, &outpoint)).collect()))
}

/// Answers the id. What the node says against it stands in the refusal word for word: callers look for its phrases.
async fn broadcast(State(reader): Shared, hex: String) -> Answer<String> {
    let transaction: Transaction =
        deserialize_hex(hex.trim()).map_err(|error| Refusal::Invalid(format!("not a transaction: {error}")))?;
    match reader.broadcast(&transaction).await? {
        BroadcastOutcome::InMempool => Ok(transaction.compute_txid().to_string()),
        BroadcastOutcome::InChain => Err(refused("Transaction outputs already in utxo set")),
        BroadcastOutcome::Refused { reason } => Err(refused(&reason)),
    }
}

fn refused(reason: &str) -> Refusal {
    Refusal::Invalid(format!("sendrawtransaction RPC error: {reason}"))
}

// ---- scripts ----

async fn script_history(State(reader): Shared, Path(script): Path<ScriptHash>) -> Answer<Json<Vec<Tx>>> {
    let index = reader.current().await?;
    let waiting = index.waiting(&script).take(WAITING_AT_MOST);
    Ok(Json(told(&index, waiting.chain(index.confirmed(&script, None).take(CONFIRMED_A_PAGE)))))
}

async fn script_history_after(
    State(reader): Shared,
    Path((script, last)): Path<(ScriptHash, Txid)>,
) -> Answer<Json<Vec<Tx>>> {
    let index = reader.current().await?;
    Ok(Json(told(&index, index.confirmed(&script, Some(&last)).take(CONFIRMED_A_PAGE))))
}

fn told<'a>(index: &Index, transactions: impl Iterator<Item = &'a Indexed>) -> Vec<Tx> {
    transactions.map(|found| Tx::of(index, found)).collect()
}

async fn fee_estimates() -> Json<BTreeMap<u16, f64>> {
    Json(FEE_TARGETS.into_iter().map(|target| (target, FEE_RATE)).collect())
}
