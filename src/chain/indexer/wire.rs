//! The answers in Esplora's words: its names, its order of fields, and what it leaves out when there is nothing to say.

use bitcoin::hex::DisplayHex as _;
use bitcoin::{Address, BlockHash, Network, OutPoint, Script, ScriptBuf, TxIn, TxMerkleNode, TxOut, Txid};
use serde::Serialize;

use super::index::{Index, Indexed, IndexedBlock, Place};

#[derive(Serialize)]
pub(super) struct Status {
    confirmed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_height: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_hash: Option<BlockHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_time: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct Tx {
    txid: Txid,
    version: i32,
    locktime: u32,
    vin: Vec<Input>,
    vout: Vec<Output>,
    size: usize,
    weight: u64,
    fee: u64,
    status: Status,
}

#[derive(Serialize)]
struct Input {
    txid: Txid,
    vout: u32,
    prevout: Option<Output>,
    scriptsig: ScriptBuf,
    scriptsig_asm: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    witness: Vec<String>,
    is_coinbase: bool,
    sequence: u32,
}

#[derive(Serialize)]
struct Output {
    scriptpubkey: ScriptBuf,
    scriptpubkey_asm: String,
    scriptpubkey_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scriptpubkey_address: Option<String>,
    value: u64,
}

#[derive(Serialize)]
pub(super) struct Outspend {
    spent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    txid: Option<Txid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vin: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
pub(super) struct BlockSummary {
    id: BlockHash,
    height: usize,
    version: i32,
    timestamp: u32,
    tx_count: usize,
    size: usize,
    weight: u64,
    merkle_root: TxMerkleNode,
    /// Null for the first block.
    previousblockhash: Option<BlockHash>,
    mediantime: u32,
    nonce: u32,
    bits: u32,
    difficulty: f64,
}

/// A block that lost, and one that nobody knows, are the same to Esplora: nulls.
#[derive(Serialize)]
pub(super) struct BlockStatus {
    in_best_chain: bool,
    height: Option<usize>,
    next_best: Option<BlockHash>,
}

impl Status {
    /// That of an unknown transaction is that of one which waits: so says Esplora, and rgb-lib relies on it.
    pub(super) fn of(index: &Index, found: Option<&Indexed>) -> Self {
        let block = match found.map(|found| found.place) {
            Some(Place::Block { height, .. }) => index.block(height).map(|block| (height, block)),
            Some(Place::Mempool { .. }) | None => None,
        };
        Self {
            confirmed: block.is_some(),
            block_height: block.map(|(height, _)| height),
            block_hash: block.map(|(_, block)| block.hash),
            block_time: block.map(|(_, block)| block.header.time),
        }
    }
}

impl Tx {
    pub(super) fn of(index: &Index, found: &Indexed) -> Self {
        let Indexed { txid, transaction, prevouts, place: _ } = found;
        let sum = |outputs: &[TxOut]| outputs.iter().map(|output| output.value.to_sat()).sum::<u64>();
        Self {
            txid: *txid,
            version: transaction.version.0,
            locktime: transaction.lock_time.to_consensus_u32(),
            vin: transaction.input.iter().enumerate().map(|(vin, input)| Input::of(input, prevouts.get(vin))).collect(),
            vout: transaction.output.iter().map(Output::of).collect(),
            size: transaction.total_size(),
            weight: transaction.weight().to_wu(),
            // A coinbase spends nothing, and pays no fee.
            fee: sum(prevouts).saturating_sub(sum(&transaction.output)),
            status: Status::of(index, Some(found)),
        }
    }
}

impl Input {
    fn of(input: &TxIn, prevout: Option<&TxOut>) -> Self {
        Self {
            txid: input.previous_output.txid,
            vout: input.previous_output.vout,
            prevout: prevout.map(Output::of),
            scriptsig: input.script_sig.clone(),
            scriptsig_asm: input.script_sig.to_asm_string(),
            witness: input.witness.iter().map(|item| item.to_lower_hex_string()).collect(),
            is_coinbase: input.previous_output.is_null(),
            sequence: input.sequence.to_consensus_u32(),
        }
    }
}

impl Output {
    fn of(output: &TxOut) -> Self {
        let script = &output.script_pubkey;
        Self {
            scriptpubkey: script.clone(),
            scriptpubkey_asm: script.to_asm_string(),
            scriptpubkey_type: kind(script),
            scriptpubkey_address: Address::from_script(script, Network::Regtest)
                .ok()
                .map(|address| address.to_string()),
            value: output.value.to_sat(),
        }
    }
}

/// Esplora's name for what a script is: the first that fits.
fn kind(script: &Script) -> &'static str {
    let kinds = [
        (script.is_empty(), "empty"),
        (script.is_op_return(), "op_return"),
        (script.is_p2pk(), "p2pk"),
        (script.is_p2pkh(), "p2pkh"),
        (script.is_p2sh(), "p2sh"),
        (script.is_p2wpkh(), "v0_p2wpkh"),
        (script.is_p2wsh(), "v0_p2wsh"),
        (script.is_p2tr(), "v1_p2tr"),
    ];
    kinds.into_iter().find(|(fits, _)| *fits).map_or("unknown", |(_, name)| name)
}

impl Outspend {
    pub(super) fn of(index: &Index, outpoint: &OutPoint) -> Self {
        let spend = index.spend(outpoint);
        Self {
            spent: spend.is_some(),
            txid: spend.map(|spend| spend.txid),
            vin: spend.map(|spend| spend.vin),
            status: spend.map(|spend| Status::of(index, index.transaction(&spend.txid))),
        }
    }
}

impl BlockSummary {
    pub(super) fn of(index: &Index, height: usize, block: &IndexedBlock) -> Self {
        let IndexedBlock { hash, header, size, weight, txids } = block;
        Self {
            id: *hash,
            height,
            version: header.version.to_consensus(),
            timestamp: header.time,
            tx_count: txids.len(),
            size: *size,
            weight: weight.to_wu(),
            merkle_root: header.merkle_root,
            previousblockhash: (height > 0).then_some(header.prev_blockhash),
            mediantime: index.median_time(height),
            nonce: header.nonce,
            bits: header.bits.to_consensus(),
            difficulty: header.difficulty_float(),
        }
    }
}

impl BlockStatus {
    pub(super) fn of(index: &Index, hash: &BlockHash) -> Self {
        let height = index.height_of(hash);
        let next = height.and_then(|height| index.block(height + 1));
        Self { in_best_chain: height.is_some(), height, next_best: next.map(|block| block.hash) }
    }
}
