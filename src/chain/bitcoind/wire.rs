//! What bitcoind says, field by field. Only what is read is declared: nodes of other versions say more.

use bitcoin::{BlockHash, ScriptBuf, Txid};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// One call, before it has an id.
pub(super) struct Call {
    pub method: &'static str,
    pub params: Value,
}

impl Call {
    pub(super) const fn new(method: &'static str, params: Value) -> Self {
        Self { method, params }
    }
}

/// The answer to one call. A `result` of null counts as absent, and means null.
#[derive(Deserialize)]
pub(super) struct Answer {
    pub id: Option<u64>,
    pub result: Option<Box<RawValue>>,
    pub error: Option<RpcError>,
}

/// bitcoind understood the call and says no.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct RpcError {
    pub code: i64,
    #[serde(default)]
    pub message: String,
}

/// The codes of bitcoind's `rpc/protocol.h` that mean something to us.
pub(super) mod code {
    pub const MISC: i64 = -1;
    pub const NOT_FOUND: i64 = -5;
    pub const INVALID_PARAMETER: i64 = -8;
    pub const DECODE_FAILED: i64 = -22;
    pub const VERIFY_ERROR: i64 = -25;
    pub const VERIFY_REJECTED: i64 = -26;
    pub const ALREADY_IN_UTXO_SET: i64 = -27;
    pub const WARMING_UP: i64 = -28;
    pub const METHOD_NOT_FOUND: i64 = -32601;
}

#[derive(Deserialize)]
pub(super) struct BlockchainInfo {
    pub blocks: u32,
    pub bestblockhash: BlockHash,
    pub initialblockdownload: bool,
}

#[derive(Deserialize)]
pub(super) struct PackageResult {
    /// `success`, or why not all of it was taken.
    pub package_msg: String,
}

#[derive(Deserialize)]
pub(super) struct BlockHeader {
    /// -1 when the block is not of the best chain.
    pub confirmations: i64,
}

#[derive(Deserialize)]
pub(super) struct TxOut {
    pub bestblock: BlockHash,
}

/// What `getrawtransaction` adds when it found the transaction in a block.
#[derive(Deserialize)]
pub(super) struct VerboseTransaction {
    #[serde(default)]
    pub confirmations: i64,
}

/// The two rates below which nothing is kept and nothing is relayed.
#[derive(Debug, Deserialize)]
pub(super) struct MempoolInfo {
    pub mempoolminfee: f64,
    pub minrelaytxfee: f64,
}

#[derive(Deserialize)]
pub(super) struct SmartFee {
    pub feerate: Option<f64>,
}

#[derive(Deserialize)]
pub(super) struct TxOutSet {
    /// False when somebody aborted the scan: what it found until then is not all.
    pub success: bool,
    pub height: u32,
    pub bestblock: BlockHash,
    pub unspents: Vec<Unspent>,
}

#[derive(Deserialize)]
pub(super) struct Unspent {
    pub txid: Txid,
    pub vout: u32,
    #[serde(rename = "scriptPubKey")]
    pub script_pubkey: ScriptBuf,
    #[serde(with = "bitcoin::amount::serde::as_btc")]
    pub amount: bitcoin::Amount,
    pub height: u32,
    pub coinbase: bool,
}
