//! What a wallet's owner does with coins of his own, whose keys he has.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Address, OutPoint, Psbt, Sequence, Transaction, TxIn, TxOut, Witness, absolute, transaction};
use serde_json::json;
use sluice::domain::wallet::Account;
use sluice::money::Sat;

use super::{refused, signed};
use crate::attacks::world::World;
use crate::harness::process::{Answer, Call};
use crate::harness::rig::{Client, parse_address, stranger};

const BEGIN: &str = "/lightning/onchain-send-begin";
const END: &str = "/lightning/onchain-send-end";
const SENT: u64 = 3_000;
const COIN: Sat = Sat::literal(100_000);
const COINS: u32 = 6;
/// Below this more are brought.
const FEW: u64 = 200_000;
const OLD_COIN: u64 = 60_000;
const LESS_A_FEE: u64 = 59_000;

impl World {
    /// Brings the tenant coins when he has few; false when the gateway has died of it.
    pub(in crate::attacks::world) async fn tenants_coins(&mut self) -> bool {
        let balance = Call::post("/wallet/btcbalance", &self.tenant);
        let Some(answer) = self.ask(&balance).await else { return false };
        let spendable = |answer: &Answer| answer.body["vanilla"]["spendable"].as_u64().unwrap_or(0);
        if spendable(&answer) >= FEW {
            return true;
        }
        let ask = Call::post("/lightning/onchain-receive", &self.tenant);
        let Some(answer) = self.ask(&ask).await.filter(Answer::is_ok) else { return false };
        let to = parse_address(answer.text("btc_address"));
        for _ in 0..COINS {
            self.pair.node.pay(&to, COIN).await;
        }
        self.pair.node.mine(1).await;
        self.persist(&balance, |answer| spendable(answer) >= FEW).await;
        true
    }

    async fn begun_send(&mut self) -> Option<Answer> {
        if !self.tenants_coins().await {
            return None;
        }
        let tenant = Arc::clone(&self.tenant);
        let wanted = json!({ "address_or_rgbinvoice": stranger().to_string(), "amount_sats": SENT, "fee_rate": 2 });
        self.begun(&tenant, BEGIN, wanted).await
    }

    /// Puts a transaction into a block, whatever the mempool thinks of it.
    async fn mined(&mut self, transaction: &Transaction) {
        self.pair.node.mine_with(std::slice::from_ref(transaction)).await;
        self.followed().await;
    }

    pub(super) async fn a_tenant_replaces_what_it_has_sent(&mut self) -> bool {
        let Some(begun) = self.begun_send().await else { return false };
        let tenant = Arc::clone(&self.tenant);
        let id = begun.request_id.clone().expect("begin names its request");
        let end = Call::post(END, &tenant).json(signed(&tenant, &begun));
        if !self.ask(&end).await.is_some_and(|answer| answer.is_ok()) {
            return false;
        }
        let bump = format!("/onchain-send/{id}/bump-begin");
        let Some(bumped) = self.begun(&tenant, &bump, json!({ "fee_rate": 10 })).await else { return false };
        let end = Call::post(format!("/onchain-send/{id}/bump-end"), &tenant).json(signed(&tenant, &bumped));
        let Some(ended) = self.ask(&end).await.filter(Answer::is_ok) else { return false };
        let txid = ended.text("txid").to_owned();
        let read = Call::get(format!("/onchain-send/{id}"), &tenant);
        let sent = self.persist_mining(&read, |answer| answer.body["status"] == "CONFIRMED").await;
        let versions = sent.body["versions"].as_array().map_or(0, Vec::len);
        versions == 2 && (sent.text("txid") == txid || self.first_version_was_mined(&sent, &txid))
    }

    /// A block may have come between both.
    fn first_version_was_mined(&self, sent: &Answer, second: &str) -> bool {
        let txid = sent.text("txid");
        let versions = sent.body["versions"].as_array().expect("versions");
        txid != second && versions.iter().any(|version| version["txid"] == txid)
    }

    pub(super) async fn a_tenant_signs_coins_that_it_has_spent_elsewhere(&mut self) -> bool {
        let Some(begun) = self.begun_send().await else { return false };
        let tenant = Arc::clone(&self.tenant);
        let elsewhere = self.pair.node.new_address().await;
        let (_, rival) = diverted(&tenant, &begun, &elsewhere);
        self.mined(&rival).await;
        let end = Call::post(END, &tenant).json(signed(&tenant, &begun));
        let Some(answer) = self.ask(&end).await else { return false };
        refused(&answer, &["inputs_spent"])
    }

    pub(super) async fn a_tenant_sends_out_what_it_has_taken_back(&mut self) -> bool {
        let Some(begun) = self.begun_send().await else { return false };
        let tenant = Arc::clone(&self.tenant);
        if !self.cancelled(&tenant, &begun).await {
            return false;
        }
        let transaction = tenant.signed_tx(begun.body.as_str().expect("a PSBT"));
        self.mined(&transaction).await;
        let id = begun.request_id.clone().expect("begin names its request");
        let read = Call::get(format!("/onchain-send/{id}"), &tenant);
        let sent = self.persist_mining(&read, |answer| answer.body["status"] == "CONFIRMED").await;
        sent.text("txid") == transaction.compute_txid().to_string()
    }

    pub(super) async fn a_tenant_brings_psbts_that_are_not_its_own(&mut self) -> bool {
        let Some(begun) = self.begun_send().await else { return false };
        let tenant = Arc::clone(&self.tenant);
        let (altered, _) = diverted(&tenant, &begun, &self.pair.node.new_address().await);
        let its_own = signed(&tenant, &begun)["signed_psbt"].as_str().expect("a PSBT").to_owned();
        let end =
            |path: &str, wallet: &Client, psbt: &str| Call::post(path, wallet).json(json!({ "signed_psbt": psbt }));
        for (call, code) in [
            (end(END, &tenant, &altered), "psbt_unknown"),
            (end(END, &tenant, begun.body.as_str().expect("a PSBT")), "psbt_not_signed"),
            (end(END, &self.pair.sides[0].client, &its_own), "psbt_unknown"),
            (end("/lightning/pay-invoice-end", &tenant, &its_own), "psbt_unknown"),
            (end(END, &tenant, "cHNidP8="), "invalid_psbt"),
        ] {
            let Some(answer) = self.ask(&call).await else { return false };
            if !refused(&answer, &[code]) {
                return false;
            }
        }
        self.cancelled(&tenant, &begun).await
    }

    /// What it brings about by its old coins stops nobody, and is no deposit: the peace at the end would show it.
    pub(super) async fn a_tenant_pays_itself_while_it_is_searched(&mut self) -> bool {
        let fresh = Client::number(u32::try_from(1_000_000 + self.next()).expect("few"));
        let old = self.pair.node.unsent_payment(&fresh.address_at(5), Sat::literal(OLD_COIN)).await;
        self.mined(&old).await;
        let register = Call::post("/wallet/register", &fresh);
        let Some(registered) = self.ask(&register).await.filter(Answer::is_ok) else { return false };
        let coin = OutPoint { txid: old.compute_txid(), vout: 0 };
        let to = parse_address(registered.text("address"));
        let to_itself = spent(&fresh, coin, 5, &to);
        self.pair.node.rpc("sendrawtransaction", json!([serialize_hex(&to_itself)])).await;
        // Once it is in a block a search finds no trace of the old coin: what looks like a deposit then is one for all who look.
        let balance = Call::post("/wallet/btcbalance", &fresh);
        self.persist(&balance, |answer| answer.body["scanning"] == false).await;
        self.pair.node.mine(1).await;
        let found = |answer: &Answer| {
            answer.body["scanning"] == false && answer.body["vanilla"]["settled"].as_u64() == Some(LESS_A_FEE)
        };
        self.persist(&balance, found).await;
        let deposits = Call::get("/deposits", &fresh);
        let is_no_deposit = |answer: &Answer| {
            let all = answer.body["deposits"].as_array();
            answer.is_ok() && all.is_some_and(|all| all.iter().all(|deposit| deposit["state"] == "own"))
        };
        self.persist(&deposits, is_no_deposit).await;
        true
    }
}

/// What was handed out, paid to somebody else instead, and signed by the owner of its coins: the PSBT, and the transaction.
fn diverted(owner: &Client, begun: &Answer, to: &Address) -> (String, Transaction) {
    let mut psbt = Psbt::from_str(begun.body.as_str().expect("a PSBT")).expect("a PSBT");
    let script = stranger().script_pubkey();
    let output = psbt.unsigned_tx.output.iter_mut().find(|output| output.script_pubkey == script);
    output.expect("it pays the stranger").script_pubkey = to.script_pubkey();
    let text = psbt.to_string();
    (owner.sign(&text), owner.signed_tx(&text))
}

/// A coin at an index of a wallet's keychain, spent by its owner without asking anybody.
fn spent(owner: &Client, coin: OutPoint, index: u32, to: &Address) -> Transaction {
    let input = TxIn { previous_output: coin, sequence: Sequence::ENABLE_RBF_NO_LOCKTIME, ..TxIn::default() };
    let pays =
        |sats: u64, to: &Address| TxOut { value: bitcoin::Amount::from_sat(sats), script_pubkey: to.script_pubkey() };
    let unsigned = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn { witness: Witness::new(), ..input }],
        output: vec![pays(LESS_A_FEE, to)],
    };
    let mut psbt = Psbt::from_unsigned_tx(unsigned).expect("it is unsigned");
    let derived = owner.keys.scripts(Account::Vanilla, index..index + 1).remove(0);
    let path = owner.keys.path(Account::Vanilla, index);
    psbt.inputs[0].witness_utxo = Some(pays(OLD_COIN, &owner.address_at(index)));
    psbt.inputs[0].tap_internal_key = Some(derived.internal_key);
    let origin = (Vec::new(), (owner.signer.wallet_xpubs().master_fingerprint, path));
    psbt.inputs[0].tap_key_origins.insert(derived.internal_key, origin);
    owner.signed_tx(&psbt.to_string())
}
