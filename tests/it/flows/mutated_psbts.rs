//! Twenty thousand PSBTs that are not what was issued: nothing but the issued transactions ever goes out.

use std::collections::HashSet;
use std::str::FromStr;

use bitcoin::absolute::LockTime;
use bitcoin::bip32::Xpriv;
use bitcoin::key::TapTweak;
use bitcoin::secp256k1::{Message, Secp256k1};
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::{Amount, Network, Psbt, Sequence, TapSighashType, TxOut, Txid, Witness};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice::flows::Code;
use sluice::flows::send::Begun;

use crate::harness::rig::{Client, Rig, stranger, unsigned};

const SEED: u64 = 0x51_1CE;
const MUTANTS: u32 = 20_000;
/// Requests that mutants may end by being harmless: what they changed is not looked at.
const SPARE: usize = 12;
const ODD_FLAGS: [TapSighashType; 5] = [
    TapSighashType::None,
    TapSighashType::Single,
    TapSighashType::AllPlusAnyoneCanPay,
    TapSighashType::NonePlusAnyoneCanPay,
    TapSighashType::SinglePlusAnyoneCanPay,
];

struct Bench {
    client: Client,
    /// What is issued and not yet ended; the last one is worked on.
    open: Vec<Begun>,
    /// Another wallet's, signed.
    foreign: Psbt,
}

impl Bench {
    fn issued(&self) -> Psbt {
        Psbt::from_str(&self.open.last().expect("one is always left").psbt).expect("a PSBT")
    }

    /// Signed, or as it was where the signer sees that something is wrong.
    fn signed(&self, psbt: &Psbt) -> Psbt {
        let mut signed = psbt.clone();
        let limits = sluice_signer::Limits { max_fee: Some(Amount::MAX_MONEY), ..Default::default() };
        match self.client.signer.sign_within(&mut signed, &limits) {
            Ok(_) => signed,
            Err(_) => psbt.clone(),
        }
    }

    /// A PSBT whose transaction is not the issued one, or whose signatures are not for it.
    fn wrong(&self, rng: &mut StdRng) -> Psbt {
        let mut psbt = self.issued();
        let inputs = psbt.inputs.len();
        match rng.random_range(0..12) {
            0..=6 => {
                self.alter(rng, &mut psbt);
                if rng.random_bool(0.3) { self.signed(&psbt) } else { psbt }
            }
            7 => {
                let flag = ODD_FLAGS[rng.random_range(0..ODD_FLAGS.len())];
                let place = rng.random_range(0..inputs);
                // One odd flag among honest signatures suffices, as valid as it is.
                let mut signed = self.signed(&psbt);
                signed.inputs[place].final_script_witness = Some(self.sign_with_flag(&psbt, place, flag));
                signed
            }
            8 => {
                let mut signed = self.signed(&psbt);
                signed.inputs.swap(0, inputs - 1);
                signed
            }
            9 => {
                let mut signed = self.signed(&psbt);
                let place = rng.random_range(0..inputs);
                signed.inputs[place].final_script_witness = Some(odd_witness(rng, &signed, place));
                signed
            }
            10 => {
                let mut signed = self.signed(&psbt);
                signed.inputs[rng.random_range(0..inputs)].final_script_witness = None;
                signed
            }
            _ => self.foreign.clone(),
        }
    }

    /// The client's own signer refuses to do this.
    fn sign_with_flag(&self, psbt: &Psbt, place: usize, flag: TapSighashType) -> Witness {
        let secp = Secp256k1::new();
        let master = Xpriv::new_master(Network::Regtest, &Client::mnemonic(1).to_seed("")).expect("a seed is a key");
        let (_, (_, path)) = psbt.inputs[place].tap_key_origins.values().next().expect("an origin");
        let key = master.derive_priv(&secp, path).expect("a path").to_keypair(&secp).tap_tweak(&secp, None);
        let coins: Vec<TxOut> = psbt.inputs.iter().filter_map(|input| input.witness_utxo.clone()).collect();
        let hash = SighashCache::new(&psbt.unsigned_tx)
            .taproot_key_spend_signature_hash(place, &Prevouts::All(&coins), flag)
            .expect("a hash");
        let signature = secp.sign_schnorr_no_aux_rand(&Message::from(hash), &key.to_keypair());
        Witness::p2tr_key_spend(&bitcoin::taproot::Signature { signature, sighash_type: flag })
    }

    fn alter(&self, rng: &mut StdRng, psbt: &mut Psbt) {
        let tx = &mut psbt.unsigned_tx;
        let (inputs, outputs) = (tx.input.len(), tx.output.len());
        match rng.random_range(0..9) {
            0 => {
                tx.input.swap(0, inputs - 1);
                psbt.inputs.swap(0, inputs - 1);
            }
            1 => {
                tx.output.swap(0, outputs - 1);
                psbt.outputs.swap(0, outputs - 1);
            }
            2 => {
                let out = &mut tx.output[rng.random_range(0..outputs)];
                out.value = Amount::from_sat(out.value.to_sat().saturating_sub(rng.random_range(1..1_000)));
            }
            3 => tx.lock_time = LockTime::from_consensus(rng.random_range(0..u32::MAX)),
            4 => tx.input[rng.random_range(0..inputs)].sequence = Sequence(rng.random_range(0..0xffff_fffd)),
            5 => tx.version.0 += rng.random_range(1..5),
            6 => {
                let twice = rng.random_range(0..inputs);
                tx.input.push(tx.input[twice].clone());
                psbt.inputs.push(psbt.inputs[twice].clone());
            }
            7 => {
                tx.output.pop();
                psbt.outputs.pop();
            }
            _ => tx.output[0].script_pubkey = self.client.address_at(rng.random_range(900..905)).script_pubkey(),
        }
    }

    /// The honest answer with a few bits or its tail gone wrong.
    fn damaged(&self, rng: &mut StdRng, spare: bool) -> Vec<u8> {
        let mut signed = self.signed(&self.issued());
        if !spare {
            // Without one signature no damage can make it right.
            let place = rng.random_range(0..signed.inputs.len());
            signed.inputs[place].final_script_witness = None;
        }
        let mut bytes = signed.serialize();
        if rng.random_bool(0.1) {
            bytes.truncate(rng.random_range(0..bytes.len()));
            return bytes;
        }
        for _ in 0..rng.random_range(1..6) {
            let place = rng.random_range(0..bytes.len());
            bytes[place] ^= 1 << rng.random_range(0..8);
        }
        bytes
    }
}

fn odd_witness(rng: &mut StdRng, signed: &Psbt, place: usize) -> Witness {
    let honest = signed.inputs[place].final_script_witness.clone().expect("it is signed");
    let mut items = honest.to_vec();
    match rng.random_range(0..5) {
        0 => items.push(vec![0x50; 3]),
        1 => items.insert(0, vec![1]),
        2 => items[0].push(0),
        3 => items[0].push(rng.random_range(2..=255)),
        _ => {
            let byte = rng.random_range(0..64);
            items[0][byte] ^= 1 << rng.random_range(0..8);
        }
    }
    Witness::from_slice(&items)
}

async fn bench(rig: &Rig) -> Bench {
    let (client, other) = (Client::number(1), Client::number(2));
    rig.funded_with(&client, &[10_000; 2 * SPARE + 2]).await;
    rig.funded_with(&other, &[10_000; 2]).await;
    let mut open = Vec::new();
    for _ in 0..=SPARE {
        open.push(rig.begin(&client, &stranger(), 15_000).await.expect("it begins"));
    }
    let foreign = rig.begin(&other, &stranger(), 15_000).await.expect("it begins");
    let foreign = Psbt::from_str(&other.sign(&foreign.psbt)).expect("a PSBT");
    Bench { client, open, foreign }
}

#[tokio::test]
async fn nothing_but_what_was_issued_goes_out() {
    use base64::Engine as _;
    println!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    let rig = Rig::sqlite().await;
    let mut bench = bench(&rig).await;
    let mut ended: HashSet<Txid> = HashSet::new();
    for number in 0..MUTANTS {
        let spare = bench.open.len() > 1;
        let bytes =
            if rng.random_bool(0.5) { bench.damaged(&mut rng, spare) } else { bench.wrong(&mut rng).serialize() };
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        match rig.end_signed(&bench.client, &text).await {
            Ok(send) => {
                let txid = unsigned(&bench.open.last().expect("one is left").psbt).compute_txid();
                assert!(spare, "mutant {number} was taken: {text}");
                assert_eq!(send.request.id, bench.open.last().expect("one is left").request, "mutant {number}");
                ended.insert(txid);
                bench.open.pop();
            }
            Err(error) => {
                let code = error.code();
                let expected = [
                    Code::InvalidPsbt,
                    Code::PsbtNotSigned,
                    Code::PsbtAltered,
                    Code::PsbtUnknown,
                    Code::InvalidSignature,
                ];
                assert!(expected.contains(&code), "mutant {number}: {code:?} {error}: {text}");
            }
        }
        if number % 100 == 0 {
            assert_eq!(rig.chain.mempool_ids(), ended, "after mutant {number}");
        }
    }
    assert_eq!(rig.chain.mempool_ids(), ended);
    for begun in &bench.open {
        rig.end(&bench.client, &begun.psbt).await.expect("the right one still works");
        ended.insert(unsigned(&begun.psbt).compute_txid());
    }
    rig.settle().await;
    assert_eq!(rig.chain.mempool_ids(), ended);
    rig.audit().await;
}
