//! Many nodes in one hand, which offer channels and fund none.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::PublicKey;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use serde_json::{Value, json};

use crate::calls::{Answer, connect_to, number, text};
use crate::node::{self, Hostile};

/// Half of it is promised to the other end.
const CAPACITY_SAT: u64 = 1_000_000;
const PUSHED_MSAT: u64 = 500_000_000;

/// Each of so many new nodes offers so many channels.
pub async fn flood(hostile: &Arc<Hostile>, params: &Value) -> Answer {
    let victim: PublicKey = text(params, "node")?.parse()?;
    let address: SocketAddr = text(params, "address")?.parse()?;
    let mut args = hostile.args.clone();
    args.listen.set_port(0);
    for _ in 0..number(params, "nodes")? {
        let one = node::start(&args, false).await?;
        connect_to(&one, victim, address).await?;
        for _ in 0..number(params, "each")? {
            let offered = one.manager.create_channel(victim, CAPACITY_SAT, PUSHED_MSAT, 0, None, None);
            offered.map_err(|error| format!("{error:?}"))?;
        }
        hostile.crowd.lock().unwrap_or_else(PoisonError::into_inner).push(one);
    }
    Ok(Value::Null)
}

/// How many of the channels the other end has signed for, and how many are gone.
pub fn stands(hostile: &Hostile) -> Value {
    let crowd = hostile.crowd.lock().unwrap_or_else(PoisonError::into_inner);
    let signed = crowd.iter().flat_map(|one| one.manager.list_channels());
    // Only a funding that the other end has signed for has a monitor.
    let signed = signed.filter(|channel| crowd.iter().any(|one| one.monitors.get_monitor(channel.channel_id).is_ok()));
    let gone: u32 = crowd.iter().map(|one| one.closed.load(Ordering::Relaxed)).sum();
    json!({ "signed": signed.count(), "gone": gone })
}

pub fn abandon(hostile: &Hostile) {
    let crowd = hostile.crowd.lock().unwrap_or_else(PoisonError::into_inner);
    crowd
        .iter()
        .for_each(|one| one.manager.force_close_all_channels_broadcasting_latest_txn("it is broken".to_owned()));
}

/// It looks like one, and spends what nobody has.
pub fn funding(sat: u64, script_pubkey: ScriptBuf) -> Transaction {
    let previous_output = OutPoint { txid: Txid::from_byte_array(rand::random()), vout: 0 };
    let witness = Witness::from_slice(&[vec![1_u8; 71], vec![2_u8; 33]]);
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness }],
        output: vec![TxOut { value: Amount::from_sat(sat), script_pubkey }],
    }
}
