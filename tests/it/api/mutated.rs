//! Whatever comes back instead of the signed PSBT, only what was issued goes out.

use bitcoin::hex::DisplayHex;
use bitcoin::{Amount, Psbt, ScriptBuf, Transaction};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::{Scene, send_of};
use crate::harness::client::{Call, Caller};
use crate::harness::rig::{Client, Database};

const MUTATIONS: usize = 500;
const SEED: u64 = 0x51_71_CE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_500_mutated_psbts_nothing_goes_out_that_was_not_issued() {
    let Some(scene) = Scene::start(Database::Sqlite, &[]).await else { return };
    let owner = scene.funded(1, &[3_000_000]).await;
    let to = scene.stranger().await;
    let mut rng = StdRng::seed_from_u64(SEED);
    let (mut accepted, mut refused) = (0, 0);
    let mut issued = Vec::new();
    let mut round = Round::begin(&owner, &send_of(&to, 1_000)).await;
    issued.push(round.unsigned.clone());
    for number in 0..MUTATIONS {
        let (what, mutated) = round.mutated(number, &mut rng);
        let answer = owner.call(Call::post("/lightning/onchain-send-end", &json!({ "signed_psbt": mutated }))).await;
        match answer.status {
            200 => {
                accepted += 1;
                assert!(!what.changes_the_transaction(), "{number}: {what:?} was accepted: {answer}");
                let txid = answer.body["txid"].as_str().expect("a transaction id");
                assert_eq!(txid, round.unsigned.compute_txid().to_string());
                scene.in_mempool(txid).await;
                assert_only(&scene, &issued).await;
                scene.mine(1).await;
                round = Round::begin(&owner, &send_of(&to, 1_000)).await;
                issued.push(round.unsigned.clone());
            }
            400 | 404 | 409 => refused += 1,
            other => panic!("{number}: {what:?} was answered {other}: {answer}"),
        }
    }
    assert_only(&scene, &issued).await;
    assert!(refused > MUTATIONS / 2 && accepted > 0, "{accepted} accepted, {refused} refused");
    let signed = json!({ "signed_psbt": round.signed });
    owner.post("/lightning/onchain-send-end", signed).await.ok();
    scene.mine(1).await;
    scene.gateway.stop().await;
}

/// Every transaction that waits at the node is one of these, to the last output.
async fn assert_only(scene: &Scene, issued: &[Transaction]) {
    let waiting = scene.node.rpc("getrawmempool", json!([])).await;
    for txid in waiting.as_array().expect("a list") {
        let raw = scene.node.rpc("getrawtransaction", json!([txid])).await;
        let tx: Transaction =
            bitcoin::consensus::encode::deserialize_hex(raw.as_str().expect("hex")).expect("a transaction");
        let known = issued.iter().any(|one| one.compute_txid() == tx.compute_txid() && one.output == tx.output);
        assert!(known, "{txid} went out, and was never issued: {raw}");
    }
}

/// What was issued, what the client would send, and what somebody sends instead.
struct Round {
    unsigned: Transaction,
    unsigned_psbt: Psbt,
    signed: String,
    thief: Client,
}

#[derive(Debug)]
enum Mutation {
    Bytes,
    Outputs,
    Inputs,
    Header,
    Signature,
    Fields,
    Text,
}

impl Mutation {
    const fn changes_the_transaction(&self) -> bool {
        matches!(self, Self::Outputs | Self::Inputs | Self::Header | Self::Signature)
    }
}

impl Round {
    async fn begin(owner: &Caller, wanted: &serde_json::Value) -> Self {
        let begun = owner.post("/lightning/onchain-send-begin", wanted.clone()).await.ok();
        let unsigned_psbt: Psbt = begun.as_str().expect("a PSBT").parse().expect("a PSBT");
        let signed = owner.sign(&begun);
        Self { unsigned: unsigned_psbt.unsigned_tx.clone(), unsigned_psbt, signed, thief: Client::number(666) }
    }

    fn mutated(&self, number: usize, rng: &mut StdRng) -> (Mutation, String) {
        let psbt: Psbt = self.signed.parse().expect("a PSBT");
        match number % 7 {
            0 => (Mutation::Bytes, bytes_changed(&psbt.serialize(), rng)),
            1 => (Mutation::Outputs, self.outputs_changed(psbt, rng)),
            2 => (Mutation::Inputs, inputs_changed(psbt, rng)),
            3 => (Mutation::Header, header_changed(psbt, rng)),
            4 => (Mutation::Signature, self.signature_changed(psbt, rng)),
            5 => (Mutation::Fields, fields_changed(psbt, rng)),
            _ => (Mutation::Text, text_changed(&self.signed, rng)),
        }
    }

    fn outputs_changed(&self, mut psbt: Psbt, rng: &mut StdRng) -> String {
        let tx = &mut psbt.unsigned_tx;
        match rng.random_range(0..5) {
            0 => {
                tx.output[0].value =
                    tx.output[0].value.checked_add(Amount::from_sat(rng.random_range(1..500))).expect("little")
            }
            1 => tx.output[0].script_pubkey = self.thief_script(),
            2 => tx.output.swap(0, 1),
            3 => {
                tx.output.pop();
                psbt.outputs.pop();
            }
            _ => {
                let last = tx.output.len() - 1;
                tx.output[last].script_pubkey = self.thief_script();
            }
        }
        psbt.to_string()
    }

    fn thief_script(&self) -> ScriptBuf {
        let key = self.thief.signer.wallet_xpubs().xpub_van.public_key;
        ScriptBuf::new_p2tr(&bitcoin::secp256k1::Secp256k1::verification_only(), key.x_only_public_key().0, None)
    }

    fn signature_changed(&self, mut psbt: Psbt, rng: &mut StdRng) -> String {
        let witness = psbt.inputs[0].final_script_witness.clone().expect("the signer finalises");
        let mut signature = witness.nth(0).expect("a signature").to_vec();
        match rng.random_range(0..6) {
            0 => {
                let at = rng.random_range(0..signature.len());
                signature[at] ^= 1 << rng.random_range(0..8);
            }
            1 => signature.push([0x02, 0x03, 0x81, 0x82, 0x83, 0x00][rng.random_range(0..6)]),
            2 => signature.truncate(rng.random_range(0..64)),
            3 => signature = vec![0; 64],
            4 => return self.unsigned_psbt.to_string(),
            _ => {
                psbt.inputs[0].final_script_witness =
                    Some(bitcoin::Witness::from_slice(&[&signature[..], &[0x51], &[0xc0; 33]]));
                return psbt.to_string();
            }
        }
        psbt.inputs[0].final_script_witness = Some(bitcoin::Witness::from_slice(&[signature]));
        psbt.to_string()
    }
}

fn bytes_changed(raw: &[u8], rng: &mut StdRng) -> String {
    let mut bytes = raw.to_vec();
    match rng.random_range(0..4) {
        0 | 1 => {
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
        }
        2 => bytes.truncate(rng.random_range(0..bytes.len())),
        _ => {
            let at = rng.random_range(0..bytes.len());
            bytes.splice(at..at, (0..rng.random_range(1..40)).map(|n: u8| n.wrapping_mul(37)).collect::<Vec<_>>());
        }
    }
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

fn inputs_changed(mut psbt: Psbt, rng: &mut StdRng) -> String {
    match rng.random_range(0..3) {
        0 => psbt.unsigned_tx.input[0].previous_output.vout ^= 1,
        1 => psbt.unsigned_tx.input[0].sequence = bitcoin::Sequence(rng.random_range(0..1_000)),
        _ => {
            let mut more = psbt.unsigned_tx.input[0].clone();
            more.previous_output.vout += 7;
            psbt.unsigned_tx.input.push(more);
            psbt.inputs.push(psbt.inputs[0].clone());
        }
    }
    psbt.to_string()
}

fn header_changed(mut psbt: Psbt, rng: &mut StdRng) -> String {
    let lock = psbt.unsigned_tx.lock_time.to_consensus_u32();
    if rng.random_bool(0.5) {
        psbt.unsigned_tx.lock_time = bitcoin::absolute::LockTime::from_consensus(lock + rng.random_range(1..9));
    } else {
        psbt.unsigned_tx.version = bitcoin::transaction::Version::non_standard(rng.random_range(3..9));
    }
    psbt.to_string()
}

/// Beside the transaction: what the gateway must not believe.
fn fields_changed(mut psbt: Psbt, rng: &mut StdRng) -> String {
    let input = &mut psbt.inputs[0];
    match rng.random_range(0..5) {
        0 => input.witness_utxo.as_mut().expect("a coin").value = Amount::from_sat(rng.random_range(0..9_000_000)),
        1 => input.witness_utxo = None,
        2 => input.sighash_type = Some(bitcoin::psbt::PsbtSighashType::from_u32(rng.random_range(0..255))),
        3 => input.final_script_sig = Some(ScriptBuf::from_bytes(vec![0x51])),
        _ => {
            let key = bitcoin::psbt::raw::Key { type_value: 0xEE, key: vec![1, 2, 3] };
            psbt.unknown.insert(key, vec![0; rng.random_range(0..200)]);
        }
    }
    psbt.to_string()
}

fn text_changed(signed: &str, rng: &mut StdRng) -> String {
    match rng.random_range(0..6) {
        0 => format!(" {signed}\n"),
        1 => signed.replace('=', ""),
        2 => signed.to_lowercase(),
        3 => format!("{signed}{signed}"),
        4 => signed.parse::<Psbt>().expect("a PSBT").serialize().to_lower_hex_string(),
        _ => signed.chars().rev().collect(),
    }
}
