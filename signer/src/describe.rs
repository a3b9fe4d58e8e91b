//! What a PSBT does, and every reason not to sign it.
//!
//! Signing asks here first and takes the first reason as its refusal, so that what `show` prints is what `sign` does.

use std::collections::HashSet;
use std::fmt;

use bitcoin::psbt::{Input as PsbtInput, Psbt};
use bitcoin::{Address, Amount, Network, OutPoint, ScriptBuf, TapSighashType, TxOut, Txid};

use crate::authorization::{self, Authorization, Read};
use crate::error::{Claim, Error, Place};
use crate::export::Export;
use crate::grant::Grant;
use crate::keys::{Account, KeyPath, Signer, network_name};
use crate::limits::exceeds_percent;

/// Weight of a key-path witness: item count, length, 64-byte signature.
const KEY_PATH_WITNESS_WEIGHT: u64 = 66;
/// Weight of the segwit marker and flag.
const SEGWIT_MARKER_WEIGHT: u64 = 2;
const HIGH_FEE_PERCENT: u64 = 25;
/// Beyond any index that a wallet restored from its words would look at.
const FAR_INDEX: u32 = 1_000_000;

/// What a PSBT does. Its `Display` is the text that `show` prints.
#[derive(Debug)]
pub struct Summary {
    pub network: Network,
    pub kind: Kind,
    pub txid: Txid,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    /// All inputs together; not known if the amount of one is missing or absurd.
    pub spends: Option<Amount>,
    /// All outputs that are not provably the wallet's own.
    pub leaves: Amount,
    pub fee: Option<Amount>,
    /// Once every input has its signature.
    pub vsize: u64,
    /// Why it must not be signed, the most telling reason first.
    pub refusals: Vec<Error>,
    /// What it may be signed with, and its owner should know.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Transaction,
    /// The message was proven to be what the signature covers.
    Authorization(Box<Authorization>),
    /// A grant to a key that may spend; its message was proven as well.
    Grant(Box<Grant>),
    /// The consent to an export of what a gateway knows; its message was proven as well.
    Export(Box<Export>),
    /// It carries a message, and `refusals` says what is wrong with it.
    UnreadableAuthorization,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    pub outpoint: OutPoint,
    pub amount: Option<Amount>,
    pub owner: Owner,
    pub finalized: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub amount: Amount,
    pub script: ScriptBuf,
    /// The address, or the script if it has none.
    pub recipient: String,
    pub owner: Owner,
}

impl Output {
    pub(crate) fn carries_only_data(&self) -> bool {
        self.amount == Amount::ZERO && self.script.is_op_return()
    }
}

/// Whose a script is. `Own` was proven by deriving it, whatever the PSBT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Own(KeyPath),
    Other,
    /// Nobody's keys were at hand to tell.
    Unknown,
}

/// Describes a PSBT without any keys: nothing is known to be anybody's own.
pub fn describe(psbt: &Psbt, network: Network) -> Summary {
    examine(psbt, network, None)
}

impl Signer {
    /// Describes a PSBT as the owner of this wallet should see it.
    pub fn describe(&self, psbt: &Psbt) -> Summary {
        examine(psbt, self.network(), Some(self))
    }
}

pub(crate) fn sats(amount: Amount) -> String {
    format!("{} sat", amount.to_sat())
}

fn examine(psbt: &Psbt, network: Network, signer: Option<&Signer>) -> Summary {
    let mut summary = Summary {
        network,
        kind: Kind::Transaction,
        txid: psbt.unsigned_tx.compute_txid(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        spends: None,
        leaves: Amount::ZERO,
        fee: None,
        vsize: signed_vsize(psbt),
        refusals: Vec::new(),
        warnings: Vec::new(),
    };
    if let Err(error) = check_shape(psbt) {
        summary.refusals.push(error);
        return summary;
    }
    examine_inputs(&mut summary, psbt, signer);
    examine_outputs(&mut summary, psbt, signer);
    match authorization::message_of(psbt) {
        Some(message) => examine_authorization(&mut summary, psbt, message),
        None => examine_money(&mut summary),
    }
    if let Some(signer) = signer {
        summary.refusals.extend(nothing_to_sign(&summary.inputs, signer));
        warn(&mut summary, psbt);
    }
    summary
}

/// A PSBT from bytes always fits; one that was built in the same process may not.
fn check_shape(psbt: &Psbt) -> Result<(), Error> {
    let transaction = &psbt.unsigned_tx;
    if transaction.input.is_empty() || transaction.output.is_empty() {
        return Err(Error::MalformedPsbt("it has no inputs or no outputs"));
    }
    if transaction.input.len() != psbt.inputs.len() || transaction.output.len() != psbt.outputs.len() {
        return Err(Error::MalformedPsbt("the number of inputs or outputs differs"));
    }
    Ok(())
}

fn examine_inputs(summary: &mut Summary, psbt: &Psbt, signer: Option<&Signer>) {
    let mut seen = HashSet::new();
    for (index, (txin, input)) in psbt.unsigned_tx.input.iter().zip(&psbt.inputs).enumerate() {
        let outpoint = txin.previous_output;
        if !seen.insert(outpoint) {
            summary.refusals.push(Error::DuplicateInput { input: index, outpoint });
        }
        let owner = examine_coin(index, outpoint, input, signer).unwrap_or_else(|error| {
            summary.refusals.push(error);
            Owner::Other
        });
        summary.inputs.push(Input {
            outpoint,
            amount: input.witness_utxo.as_ref().map(|coin| coin.value),
            owner,
            finalized: input.final_script_witness.is_some(),
        });
    }
}

fn examine_coin(index: usize, outpoint: OutPoint, input: &PsbtInput, signer: Option<&Signer>) -> Result<Owner, Error> {
    let coin = input.witness_utxo.as_ref().ok_or(Error::MissingWitnessUtxo { input: index })?;
    if !previous_transaction_agrees(outpoint, input, coin) {
        return Err(Error::UtxoMismatch { input: index });
    }
    let Some(signer) = signer else {
        return Ok(Owner::Unknown);
    };
    let false_claim = |claim| Error::FalseClaim { place: Place::Input(index), claim };
    let Some(key) = signer.owner(&input.tap_key_origins, &coin.script_pubkey).map_err(false_claim)? else {
        return Ok(Owner::Other);
    };
    // Not needed to sign, but a gateway that leaves it out would fail with other signers.
    if input.tap_internal_key != Some(key.internal) {
        return Err(false_claim(Claim::InternalKey));
    }
    match input.taproot_hash_ty() {
        Ok(TapSighashType::Default | TapSighashType::All) => Ok(Owner::Own(key.path)),
        _ => Err(Error::SighashType { input: index }),
    }
}

fn previous_transaction_agrees(outpoint: OutPoint, input: &PsbtInput, coin: &TxOut) -> bool {
    let Some(previous) = &input.non_witness_utxo else {
        return true;
    };
    let output = usize::try_from(outpoint.vout).ok().and_then(|vout| previous.output.get(vout));
    previous.compute_txid() == outpoint.txid && output == Some(coin)
}

fn examine_outputs(summary: &mut Summary, psbt: &Psbt, signer: Option<&Signer>) {
    for (index, (txout, output)) in psbt.unsigned_tx.output.iter().zip(&psbt.outputs).enumerate() {
        let owner = match signer.map(|signer| signer.owner(&output.tap_key_origins, &txout.script_pubkey)) {
            None => Owner::Unknown,
            Some(Ok(Some(key))) => Owner::Own(key.path),
            Some(Ok(None)) => Owner::Other,
            Some(Err(claim)) => {
                summary.refusals.push(Error::FalseClaim { place: Place::Output(index), claim });
                Owner::Other
            }
        };
        summary.outputs.push(Output {
            amount: txout.value,
            script: txout.script_pubkey.clone(),
            recipient: recipient(txout, summary.network),
            owner,
        });
    }
}

fn recipient(txout: &TxOut, network: Network) -> String {
    match Address::from_script(&txout.script_pubkey, network) {
        Ok(address) => address.to_string(),
        Err(_) => txout.script_pubkey.to_asm_string(),
    }
}

fn examine_authorization(summary: &mut Summary, psbt: &Psbt, message: &[u8]) {
    summary.kind = Kind::UnreadableAuthorization;
    let (Some(input), Some(coin)) = (summary.inputs.first(), &psbt.inputs[0].witness_utxo) else {
        return;
    };
    if coin.value != Amount::ZERO {
        summary.refusals.push(Error::UtxoMismatch { input: 0 });
    }
    if let Owner::Own(key) = input.owner
        && key != KeyPath::AUTHORIZATION
    {
        summary.refusals.push(Error::AuthorizationKey(key.to_string()));
    }
    match authorization::verify(psbt, message, &coin.script_pubkey, summary.network) {
        Ok(Read::Authorization(authorization)) => summary.kind = Kind::Authorization(Box::new(authorization)),
        Ok(Read::Grant(grant)) => summary.kind = Kind::Grant(Box::new(grant)),
        Ok(Read::Export(export)) => summary.kind = Kind::Export(Box::new(export)),
        Err(error) => summary.refusals.push(error),
    }
}

fn examine_money(summary: &mut Summary) {
    // A signature over a coin of 0 sat is how BIP-322 signs a message, and here the message would not be shown.
    let messages = summary.inputs.iter().enumerate().filter(|(_, input)| input.amount == Some(Amount::ZERO));
    summary.refusals.extend(messages.map(|(input, _)| Error::ZeroValueInput { input }));

    let not_own = summary.outputs.iter().filter(|output| !matches!(output.owner, Owner::Own(_)));
    summary.leaves = total(not_own.map(|output| output.amount)).unwrap_or(Amount::MAX_MONEY);
    let Some(amounts) = summary.inputs.iter().map(|input| input.amount).collect::<Option<Vec<_>>>() else {
        return;
    };
    match (total(amounts), total(summary.outputs.iter().map(|output| output.amount))) {
        (None, _) => summary.refusals.push(Error::AmountOutOfRange("inputs")),
        (_, None) => summary.refusals.push(Error::AmountOutOfRange("outputs")),
        (Some(inputs), Some(outputs)) => {
            summary.spends = Some(inputs);
            summary.fee = inputs.checked_sub(outputs);
            if summary.fee.is_none() {
                let (inputs, outputs) = (sats(inputs), sats(outputs));
                summary.refusals.push(Error::OutputsExceedInputs { inputs, outputs });
            }
        }
    }
}

fn total(amounts: impl IntoIterator<Item = Amount>) -> Option<Amount> {
    amounts.into_iter().try_fold(Amount::ZERO, Amount::checked_add).filter(|total| *total <= Amount::MAX_MONEY)
}

fn nothing_to_sign(inputs: &[Input], signer: &Signer) -> Option<Error> {
    let own = |input: &&Input| matches!(input.owner, Owner::Own(_));
    if inputs.iter().filter(own).any(|input| !input.finalized) {
        return None;
    }
    let hint = if inputs.iter().any(|input| input.finalized) {
        "It is signed already"
    } else {
        "It belongs to another wallet, or its inputs lack tap_bip32_derivation"
    };
    Some(Error::NothingToSign { fingerprint: signer.fingerprint().to_string(), hint })
}

fn warn(summary: &mut Summary, psbt: &Psbt) {
    let mut warnings = Vec::new();
    let foreign = summary.inputs.iter().filter(|input| input.owner == Owner::Other).count();
    if foreign > 0 {
        warnings
            .push(format!("{foreign} of {} inputs are not this wallet's; others must sign them", summary.inputs.len()));
    }
    let colored = |input: &Input| matches!(input.owner, Owner::Own(KeyPath { account: Account::Colored, .. }));
    if summary.inputs.iter().any(colored) {
        warnings.push("it spends colored coins: assets on them move too, and a PSBT doesn't say where to".to_owned());
    }
    if let (Some(fee), Some(spends)) = (summary.fee, summary.spends)
        && exceeds_percent(fee, spends, HIGH_FEE_PERCENT)
    {
        warnings.push(format!("the fee is more than {HIGH_FEE_PERCENT} % of what it spends"));
    }
    for (index, output) in summary.outputs.iter().enumerate() {
        if let Owner::Own(key) = output.owner
            && key.index > FAR_INDEX
        {
            warnings.push(format!("output {index} is yours, but a restored wallet won't look as far as {key}"));
        }
    }
    if psbt.unsigned_tx.is_lock_time_enabled() && psbt.unsigned_tx.lock_time.to_consensus_u32() != 0 {
        warnings.push(format!("it can't be mined before lock time {}", psbt.unsigned_tx.lock_time));
    }
    summary.warnings = warnings;
}

/// As if every input were a key-path spend, which is exact for all that this program signs.
fn signed_vsize(psbt: &Psbt) -> u64 {
    let stripped = psbt.unsigned_tx.base_size() as u64 * 4;
    let witnesses = psbt.inputs.len() as u64 * KEY_PATH_WITNESS_WEIGHT;
    (stripped + SEGWIT_MARKER_WEIGHT + witnesses).div_ceil(4)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Transaction => self.write_transaction(f)?,
            Kind::Authorization(authorization) => {
                writeln!(
                    f,
                    "Authorisation of an off-chain spend ({}); it can't be broadcast. Its message:",
                    network_name(self.network)
                )?;
                write_message(f, &authorization.message)?;
            }
            Kind::Grant(grant) => {
                writeln!(
                    f,
                    "Spending grant ({}): a key of the gateway may spend up to these limits without asking you. Its message:",
                    network_name(self.network)
                )?;
                write_message(f, &grant.message)?;
            }
            Kind::Export(export) => {
                writeln!(
                    f,
                    "Export ({}): whoever holds it and its password knows every asset of the wallet. Its message:",
                    network_name(self.network)
                )?;
                write_message(f, &export.message)?;
            }
            Kind::UnreadableAuthorization => {
                writeln!(
                    f,
                    "An authorisation whose message can't be trusted, so it is not shown ({})",
                    network_name(self.network)
                )?;
            }
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        for refusal in &self.refusals {
            writeln!(f, "must not be signed: {refusal}")?;
        }
        Ok(())
    }
}

impl Summary {
    fn write_transaction(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "On-chain transaction ({}), unsigned txid {}", network_name(self.network), self.txid)?;
        for (index, input) in self.inputs.iter().enumerate() {
            let amount = input.amount.map_or_else(|| "unknown amount".to_owned(), sats);
            let signed = if input.finalized { ", signed" } else { "" };
            writeln!(f, "  input {index}: {amount} of {}{}{signed}", input.outpoint, Whose(input.owner))?;
        }
        for (index, output) in self.outputs.iter().enumerate() {
            let amount = sats(output.amount);
            writeln!(f, "  output {index}: {amount} to {}{}", output.recipient, Whose(output.owner))?;
        }
        if self.outputs.iter().any(|output| output.owner != Owner::Unknown) {
            writeln!(f, "  goes to others: {}", sats(self.leaves))?;
        }
        if let Some(fee) = self.fee {
            // Tenths of sat/vB in integers: enough for a person.
            let tenths = u128::from(fee.to_sat()) * 10 / u128::from(self.vsize.max(1));
            writeln!(f, "  fee: {}, {}.{} sat/vB of {} vB", sats(fee), tenths / 10, tenths % 10, self.vsize)?;
        }
        Ok(())
    }
}

fn write_message(f: &mut fmt::Formatter<'_>, message: &str) -> fmt::Result {
    for line in message.lines() {
        writeln!(f, "  {line}")?;
    }
    Ok(())
}

/// The end of an input's or output's line.
struct Whose(Owner);

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Owner::Own(key) => write!(f, " (yours, {key})"),
            Owner::Other => f.write_str(" (not yours)"),
            Owner::Unknown => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{
        OTHER_ADDRESS, authorization, claim_own, message, own, payment, payment_with, signer, to_other, to_own,
    };

    #[test]
    fn a_payment_is_described() {
        let summary = signer().describe(&payment());
        assert_eq!(summary.spends, Some(Amount::from_sat(100_000)));
        assert_eq!(summary.leaves, Amount::from_sat(60_000));
        assert_eq!(summary.fee, Some(Amount::from_sat(1_000)));
        assert_eq!(summary.inputs[0].owner, Owner::Own(own(0)));
        assert_eq!(summary.outputs[0].owner, Owner::Other);
        assert_eq!(summary.outputs[1].owner, Owner::Own(own(1)));
        assert!(summary.refusals.is_empty() && summary.warnings.is_empty(), "{summary}");
        let text = summary.to_string();
        assert!(text.contains(&format!("60000 sat to {OTHER_ADDRESS} (not yours)")), "{text}");
        assert!(text.contains("(yours, vanilla /0/1)"), "{text}");
    }

    #[test]
    fn the_virtual_size_is_that_of_the_signed_transaction() {
        let mut psbt = payment_with(&[own(0), own(3)], vec![to_other(150_000), to_own(40_000, own(1))]);
        let said = signer().describe(&psbt).vsize;
        signer().sign(&mut psbt).unwrap();
        assert_eq!(said, psbt.extract_tx().unwrap().vsize() as u64);
    }

    #[test]
    fn without_keys_nothing_is_anybodys_own() {
        let summary = describe(&payment(), Network::Regtest);
        assert!(summary.inputs.iter().all(|input| input.owner == Owner::Unknown));
        assert!(summary.outputs.iter().all(|output| output.owner == Owner::Unknown));
        assert!(summary.refusals.is_empty(), "{summary}");
    }

    #[test]
    fn change_without_a_derivation_is_not_shown_as_own() {
        let mut psbt = payment();
        psbt.outputs[1].tap_key_origins.clear();
        let summary = signer().describe(&psbt);
        assert_eq!(summary.outputs[1].owner, Owner::Other);
        assert_eq!(summary.leaves, Amount::from_sat(99_000));
    }

    #[test]
    fn a_foreign_output_that_says_to_be_own_is_refused() {
        let mut psbt = payment();
        claim_own(&mut psbt.outputs[0].tap_key_origins, own(1));
        let summary = signer().describe(&psbt);
        assert_eq!(summary.outputs[0].owner, Owner::Other);
        let place = Place::Output(0);
        assert!(
            matches!(&summary.refusals[..], [Error::FalseClaim { place: at, claim: Claim::Script(_) }] if *at == place),
            "{summary}"
        );
    }

    #[test]
    fn an_authorisation_shows_its_message_only_if_proven() {
        let psbt = authorization(&message());
        let text = signer().describe(&psbt).to_string();
        assert!(text.contains("  to: abababab"), "{text}");
        let without_keys = describe(&psbt, Network::Regtest);
        assert!(matches!(without_keys.kind, Kind::Authorization(_)), "{without_keys}");
    }

    #[test]
    fn colored_coins_far_change_and_lock_times_are_warned_of() {
        let colored = KeyPath { account: Account::Colored, index: 0 };
        let far = KeyPath { account: Account::Vanilla, index: FAR_INDEX + 1 };
        let mut psbt = payment_with(&[colored], vec![to_own(99_000, far)]);
        psbt.unsigned_tx.lock_time = bitcoin::absolute::LockTime::from_consensus(7);
        psbt.unsigned_tx.input[0].sequence = bitcoin::Sequence::ENABLE_RBF_NO_LOCKTIME;
        let text = signer().describe(&psbt).to_string();
        for part in ["colored coins", "won't look as far as vanilla /0/1000001", "lock time"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
