//! From the library's words to the port's.

use std::str::FromStr;

use bitcoin::{OutPoint, Txid};
use rgb_lib::wallet::{
    AssetCFA, AssetIFA, AssetNIA, AssetUDA, Assets, Balance, Outpoint, Transfer as RgbTransfer,
    TransferKind as RgbTransferKind, Unspent,
};
use rgb_lib::{AssetSchema, Assignment, Error, TransferStatus as RgbTransferStatus};

use super::{SERVICE, nonsense};
use crate::money::{Amount, Sat};
use crate::ports::PortError;
use crate::ports::assets::{
    Allocation, Asset, AssetBalance, AssetError, ColoredCoin, Refusal, Schema, Transfer, TransferKind, TransferStatus,
};

pub(super) const fn schema(of: AssetSchema) -> Schema {
    match of {
        AssetSchema::Nia => Schema::Nia,
        AssetSchema::Uda => Schema::Uda,
        AssetSchema::Cfa => Schema::Cfa,
        AssetSchema::Ifa => Schema::Ifa,
    }
}

pub(super) fn amount(units: u64) -> Result<Amount, PortError> {
    Amount::from_asset_units(units).map_err(|_| nonsense(format!("an amount of {units} units")))
}

/// How much an assignment is of a fungible asset; empty when it leaves that open or is of another kind.
pub(super) fn fungible(assignment: &Assignment) -> Result<Option<Amount>, PortError> {
    match assignment {
        // What the library writes for an invoice that names an asset and no amount.
        Assignment::Fungible(0) => Ok(None),
        Assignment::Fungible(units) => amount(*units).map(Some),
        Assignment::NonFungible | Assignment::InflationRight(_) | Assignment::Any => Ok(None),
    }
}

fn balance(of: &Balance) -> Result<AssetBalance, PortError> {
    Ok(AssetBalance { settled: amount(of.settled)?, future: amount(of.future)?, spendable: amount(of.spendable)? })
}

pub(super) fn outpoint(of: &Outpoint) -> Result<OutPoint, PortError> {
    Ok(OutPoint { txid: Txid::from_str(&of.txid).map_err(nonsense)?, vout: of.vout })
}

pub(super) fn coin(of: &Unspent) -> Result<ColoredCoin, PortError> {
    let allocation = |of: &rgb_lib::wallet::RgbAllocation| {
        let amount = fungible(&of.assignment)?.unwrap_or(Amount::ZERO);
        Ok(Allocation { asset: of.asset_id.clone(), amount, settled: of.settled })
    };
    Ok(ColoredCoin {
        outpoint: outpoint(&of.utxo.outpoint)?,
        allocations: of.rgb_allocations.iter().map(allocation).collect::<Result<_, PortError>>()?,
        promised: of.pending_blinded,
    })
}

pub(super) fn assets(of: Assets) -> Result<Vec<Asset>, PortError> {
    let nia = of.nia.into_iter().flatten().map(nia);
    let uda = of.uda.into_iter().flatten().map(uda);
    let cfa = of.cfa.into_iter().flatten().map(cfa);
    let ifa = of.ifa.into_iter().flatten().map(ifa);
    nia.chain(uda).chain(cfa).chain(ifa).collect()
}

pub(super) fn nia(of: AssetNIA) -> Result<Asset, PortError> {
    Ok(Asset {
        id: of.asset_id,
        schema: Schema::Nia,
        ticker: Some(of.ticker),
        name: of.name,
        details: of.details,
        precision: of.precision,
        issued_supply: amount(of.issued_supply)?,
        issued_at: of.timestamp,
        added_at: of.added_at,
        balance: balance(&of.balance)?,
    })
}

fn uda(of: AssetUDA) -> Result<Asset, PortError> {
    Ok(Asset {
        id: of.asset_id,
        schema: Schema::Uda,
        ticker: Some(of.ticker),
        name: of.name,
        details: of.details,
        precision: of.precision,
        issued_supply: amount(1)?,
        issued_at: of.timestamp,
        added_at: of.added_at,
        balance: balance(&of.balance)?,
    })
}

fn cfa(of: AssetCFA) -> Result<Asset, PortError> {
    Ok(Asset {
        id: of.asset_id,
        schema: Schema::Cfa,
        ticker: None,
        name: of.name,
        details: of.details,
        precision: of.precision,
        issued_supply: amount(of.issued_supply)?,
        issued_at: of.timestamp,
        added_at: of.added_at,
        balance: balance(&of.balance)?,
    })
}

fn ifa(of: AssetIFA) -> Result<Asset, PortError> {
    Ok(Asset {
        id: of.asset_id,
        schema: Schema::Ifa,
        ticker: Some(of.ticker),
        name: of.name,
        details: of.details,
        precision: of.precision,
        issued_supply: amount(of.known_circulating_supply)?,
        issued_at: of.timestamp,
        added_at: of.added_at,
        balance: balance(&of.balance)?,
    })
}

const fn status(of: RgbTransferStatus) -> TransferStatus {
    match of {
        RgbTransferStatus::Initiated => TransferStatus::Initiated,
        // Not accepted before the blocks that it builds on are old enough.
        RgbTransferStatus::WaitingCounterparty | RgbTransferStatus::WaitingSafeHeight => {
            TransferStatus::WaitingCounterparty
        }
        RgbTransferStatus::WaitingBroadcast | RgbTransferStatus::WaitingConfirmations => {
            TransferStatus::WaitingConfirmations
        }
        RgbTransferStatus::Settled => TransferStatus::Settled,
        RgbTransferStatus::Failed => TransferStatus::Failed,
    }
}

const fn kind(of: &RgbTransferKind) -> TransferKind {
    match of {
        RgbTransferKind::Issuance => TransferKind::Issuance,
        RgbTransferKind::ReceiveBlind => TransferKind::ReceiveBlind,
        RgbTransferKind::ReceiveWitness => TransferKind::ReceiveWitness,
        RgbTransferKind::Send => TransferKind::Send,
        RgbTransferKind::Inflation => TransferKind::Inflation,
        RgbTransferKind::Burn => TransferKind::Burn,
    }
}

pub(super) fn transfer(of: RgbTransfer, asset: Option<String>) -> Result<Transfer, PortError> {
    let amounts = of.assignments.iter().map(fungible).collect::<Result<Vec<_>, _>>()?;
    Ok(Transfer {
        index: of.idx,
        batch: of.batch_transfer_idx,
        status: status(of.status),
        kind: kind(&of.kind),
        asset,
        requested: of.requested_assignment.as_ref().map(fungible).transpose()?.flatten(),
        amounts: amounts.into_iter().flatten().collect(),
        txid: of.txid.as_deref().map(Txid::from_str).transpose().map_err(nonsense)?,
        recipient: of.recipient_id,
        receive_coin: of.receive_utxo.as_ref().map(outpoint).transpose()?,
        change_coin: of.change_utxo.as_ref().map(outpoint).transpose()?,
        created_at: of.created_at,
        updated_at: of.updated_at,
        expires_at: of.expiration_timestamp,
    })
}

/// What the library's error means for a caller. What is not listed is a fault of the engine or of its indexer.
pub(super) fn error(error: Error) -> AssetError {
    let invalid = |what, error: &Error| Refusal::Invalid { what, reason: error.to_string() }.into();
    match error {
        Error::AssetNotFound { asset_id } => Refusal::UnknownAsset(asset_id).into(),
        Error::InsufficientAllocationSlots => Refusal::NoFreeCoin.into(),
        Error::InsufficientAssignments { available, .. } => match amount(available.fungible) {
            Ok(available) => Refusal::NotEnough { available }.into(),
            Err(error) => error.into(),
        },
        Error::InsufficientBitcoins { needed, available } => {
            let sat = |n| Sat::new(n).unwrap_or(Sat::MAX);
            Refusal::BitcoinLow { needed: sat(needed), available: sat(available) }.into()
        }
        Error::BatchTransferNotFound { .. } => Refusal::NoSuchTransfer.into(),
        Error::CannotFailBatchTransfer | Error::CannotProvideOutOfBandAck { .. } => Refusal::TooLate.into(),
        Error::InvalidTicker { .. } => invalid("ticker", &error),
        Error::InvalidName { .. } => invalid("name", &error),
        Error::InvalidPrecision { .. } => invalid("precision", &error),
        Error::NoIssuanceAmounts | Error::TooHighIssuanceAmounts | Error::InvalidAmountZero => {
            invalid("amounts", &error)
        }
        Error::InvalidInvoice { .. } => invalid("invoice", &error),
        Error::InvalidAssignment => invalid("amount", &error),
        Error::InvalidExpiration => invalid("expires_at", &error),
        Error::InvalidFeeRate { .. } => invalid("fee_rate", &error),
        Error::OutputBelowDustLimit => invalid("witness", &error),
        Error::InvalidRecipientID
        | Error::InvalidRecipientNetwork
        | Error::InvalidRecipientData { .. }
        | Error::RecipientIDAlreadyUsed
        | Error::RecipientIDDuplicated => invalid("recipient", &error),
        Error::Indexer { .. }
        | Error::InvalidIndexer { .. }
        | Error::Network { .. }
        | Error::FailedBroadcast { .. }
        | Error::FailedBdkSync { .. } => {
            PortError::Unreachable { service: "the indexer of the RGB engine", reason: error.to_string() }.into()
        }
        other => PortError::Nonsense { service: SERVICE, reason: other.to_string() }.into(),
    }
}
