//! From bitcoind's words to the port's, and the checks that make them believable. Pure.

use std::collections::HashSet;

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::merkle_tree::calculate_root;
use bitcoin::{Block, BlockHash, OutPoint, Script, ScriptBuf, Transaction, TxMerkleNode, Txid};

use super::wire::{BlockchainInfo, MempoolInfo, RpcError, SmartFee, TxOutSet, Unspent, code};
use crate::money::{FeeRate, Sat};
use crate::ports::PortError;
use crate::ports::chain::{BlockRef, ScannedCoin};

const SERVICE: &str = "bitcoind";

pub(super) fn unreachable(reason: impl Into<String>) -> PortError {
    PortError::Unreachable { service: SERVICE, reason: reason.into() }
}

pub(super) fn nonsense(reason: impl Into<String>) -> PortError {
    PortError::Nonsense { service: SERVICE, reason: reason.into() }
}

pub(super) fn misconfigured(reason: impl Into<String>) -> PortError {
    PortError::Misconfigured { service: SERVICE, reason: reason.into() }
}

/// A no to a call that has none among its answers.
pub(super) fn refused_call(no: &RpcError) -> PortError {
    let reason = format!("{} (code {})", no.message, no.code);
    match no.code {
        code::WARMING_UP => unreachable(reason),
        code::METHOD_NOT_FOUND => misconfigured(reason),
        _ => nonsense(reason),
    }
}

pub(super) fn tip(info: &BlockchainInfo) -> BlockRef {
    BlockRef { height: info.blocks, hash: info.bestblockhash }
}

/// Reads a block and makes sure that it is the one named by the hash, whole and unaltered.
pub(super) fn block(hex: &str, asked: BlockHash) -> Result<Block, PortError> {
    let block: Block = deserialize_hex(hex).map_err(|error| nonsense(format!("block {asked}: {error}")))?;
    let fault = if block.block_hash() != asked {
        "its header has another hash"
    } else if !block.txdata.first().is_some_and(Transaction::is_coinbase) {
        "it does not begin with a coinbase"
    } else if !has_the_transactions_of_its_header(&block) {
        "its transactions are not those of its header"
    } else if !block.check_witness_commitment() {
        "its witnesses are not those it commits to"
    } else {
        return Ok(block);
    };
    Err(nonsense(format!("block {asked}: {fault}")))
}

/// The merkle root alone does not do: the same root has a second list, with the last transactions twice (CVE-2012-2459).
fn has_the_transactions_of_its_header(block: &Block) -> bool {
    let txids: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
    let distinct: HashSet<&Txid> = txids.iter().collect();
    let root = calculate_root(txids.iter().map(|txid| txid.to_raw_hash())).map(TxMerkleNode::from_raw_hash);
    distinct.len() == txids.len() && root == Some(block.header.merkle_root)
}

pub(super) fn transaction(hex: &str, asked: Txid) -> Result<Transaction, PortError> {
    let tx: Transaction = deserialize_hex(hex).map_err(|error| nonsense(format!("transaction {asked}: {error}")))?;
    if tx.compute_txid() == asked { Ok(tx) } else { Err(nonsense(format!("transaction {asked}: it has another id"))) }
}

/// The descriptor that matches exactly this script.
pub(super) fn descriptor(script: &Script) -> String {
    format!("raw({script:x})")
}

pub(super) fn scanned(set: TxOutSet, asked: &HashSet<&ScriptBuf>) -> Result<(BlockRef, Vec<ScannedCoin>), PortError> {
    let TxOutSet { success, height, bestblock, unspents } = set;
    if !success {
        return Err(unreachable("the scan was aborted"));
    }
    let coins = unspents.into_iter().map(|unspent| scanned_coin(unspent, asked)).collect::<Result<Vec<_>, _>>()?;
    Ok((BlockRef { height, hash: bestblock }, coins))
}

fn scanned_coin(unspent: Unspent, asked: &HashSet<&ScriptBuf>) -> Result<ScannedCoin, PortError> {
    let Unspent { txid, vout, script_pubkey: script, amount, height, coinbase } = unspent;
    if !asked.contains(&script) {
        return Err(nonsense("the scan found a script that nobody asked for"));
    }
    let amount = Sat::try_from(amount).map_err(|_| nonsense("a coin of more bitcoin than there can be"))?;
    Ok(ScannedCoin { outpoint: OutPoint { txid, vout }, script, amount, height, coinbase })
}

pub(super) fn fee_rate(fee: &SmartFee) -> Result<Option<FeeRate>, PortError> {
    fee.feerate.map(read_rate).transpose()
}

pub(super) fn fee_floor(info: &MempoolInfo) -> Result<FeeRate, PortError> {
    Ok(read_rate(info.mempoolminfee)?.max(read_rate(info.minrelaytxfee)?))
}

fn read_rate(rate: f64) -> Result<FeeRate, PortError> {
    FeeRate::from_btc_per_kvb(rate).map_err(|_| nonsense(format!("a fee rate of {rate} BTC/kvB")))
}

/// What bitcoind's no to `sendrawtransaction` says of the transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BroadcastNo {
    InMempool,
    InChain,
    /// The inputs are gone; perhaps it is this very transaction that has spent them.
    LookForIt {
        reason: String,
    },
    Refused {
        reason: String,
    },
}

/// # Errors
/// When the no is not about the transaction.
pub(super) fn broadcast_no(no: RpcError) -> Result<BroadcastNo, PortError> {
    let RpcError { code, message } = no;
    let says = |text: &str| message.contains(text);
    match code {
        code::ALREADY_IN_UTXO_SET => Ok(BroadcastNo::InChain),
        code::DECODE_FAILED | code::VERIFY_ERROR | code::VERIFY_REJECTED => {
            Ok(if says("txn-already-in-mempool") || says("txn-same-nonwitness-data-in-mempool") {
                BroadcastNo::InMempool
            } else if says("txn-already-known") || says("missingorspent") || says("Missing inputs") {
                BroadcastNo::LookForIt { reason: message }
            } else {
                BroadcastNo::Refused { reason: message }
            })
        }
        _ => Err(refused_call(&RpcError { code, message })),
    }
}
