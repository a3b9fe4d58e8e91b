//! Which codes each operation may answer. The document says them; so does the page of errors.

use crate::flows::Code;
use crate::http::proxy;

/// What any call for a wallet may answer.
pub const COMMON: &[Code] = &[
    Code::WalletHeadersMissing,
    Code::InvalidKeys,
    Code::Unauthorized,
    Code::Forbidden,
    Code::NotLocal,
    Code::WalletNotRegistered,
    Code::RateLimited,
    Code::StoreUnavailable,
    Code::Timeout,
    Code::Internal,
];

/// What any call of an operator may answer.
pub const OPERATOR: &[Code] =
    &[Code::Unauthorized, Code::Forbidden, Code::RateLimited, Code::StoreUnavailable, Code::Timeout, Code::Internal];

/// What a call of nobody in particular may answer beside its own dialect.
pub const PUBLIC: &[Code] = &[Code::Timeout, Code::Internal];

/// What any call of an operator that needs the node may answer besides.
const NODE: &[Code] = &[Code::LightningUnavailable, Code::LightningNotReady];

/// What any call with a body may answer besides.
pub const WITH_BODY: &[Code] = &[Code::InvalidRequest, Code::BodyTooLarge];

const BEGIN: &[Code] = &[
    Code::InvalidAddress,
    Code::WrongNetwork,
    Code::AmountBelowDust,
    Code::FeeRateOutOfRange,
    Code::FeeTooHigh,
    Code::TooManyInputs,
    Code::InsufficientFunds,
    Code::CoinsLeased,
    Code::CoinsUnconfirmed,
    Code::TooManyOpenRequests,
    Code::RequestExpired,
    Code::IdempotencyMismatch,
    Code::PayoutsHalted,
    Code::ChainNotSynced,
];

const END: &[Code] = &[
    Code::InvalidPsbt,
    Code::PsbtNotSigned,
    Code::PsbtAltered,
    Code::InvalidSignature,
    Code::PsbtUnknown,
    Code::RequestExpired,
    Code::InputsSpent,
    Code::PayoutsHalted,
];

const BUMP: &[Code] = &[
    Code::NotFound,
    Code::NotBroadcast,
    Code::NotBumpable,
    Code::AlreadyConfirmed,
    Code::ChangeSpent,
    Code::BumpTooSmall,
    Code::FeeRateOutOfRange,
    Code::FeeTooHigh,
    Code::InsufficientFunds,
    Code::InputsSpent,
    Code::TooManyOpenRequests,
    Code::RequestExpired,
    Code::IdempotencyMismatch,
    Code::PayoutsHalted,
];

/// What paying over Lightning may answer when it begins.
const PAY: &[Code] = &[
    Code::InvalidInvoice,
    Code::AssetInvoice,
    Code::WrongNetwork,
    Code::InvoiceExpired,
    Code::AlreadyPaid,
    Code::PaymentInProgress,
    Code::SelfPayment,
    Code::FeeLimitTooLow,
    Code::InsufficientFunds,
    Code::TooManyOpenRequests,
    Code::RequestExpired,
    Code::IdempotencyMismatch,
    Code::PayoutsHalted,
    Code::LightningUnavailable,
    Code::LightningNotReady,
];

/// What sending off-chain money on-chain may answer besides, when it begins.
const WITHDRAW: &[Code] = &[Code::ReserveLow, Code::LightningUnavailable, Code::LightningNotReady];

/// What only a key that may spend is answered.
const SPEND: &[Code] = &[Code::SpendingNotGranted, Code::PaymentAboveLimit, Code::SpendingLimitExceeded];

const PAY_END: &[Code] = &[
    Code::InvalidPsbt,
    Code::PsbtNotSigned,
    Code::PsbtAltered,
    Code::InvalidSignature,
    Code::PsbtUnknown,
    Code::RequestExpired,
    Code::InvalidInvoice,
    Code::InvoiceExpired,
    Code::AlreadyPaid,
    Code::PaymentInProgress,
    Code::PayoutsHalted,
    Code::LightningUnavailable,
    Code::LightningNotReady,
];

const INVOICE: &[Code] =
    &[Code::IdempotencyMismatch, Code::AssetLightningUnavailable, Code::LightningUnavailable, Code::LightningNotReady];

const ESTIMATE: &[Code] = &[
    Code::InvalidInvoice,
    Code::AssetInvoice,
    Code::WrongNetwork,
    Code::InvoiceExpired,
    Code::NoLiquidity,
    Code::AssetLightningUnavailable,
    Code::LightningUnavailable,
    Code::LightningNotReady,
];

/// What taking a signature over a message may answer.
const SIGNED: &[Code] = &[
    Code::InvalidPsbt,
    Code::PsbtNotSigned,
    Code::PsbtAltered,
    Code::InvalidSignature,
    Code::PsbtUnknown,
    Code::RequestExpired,
];

/// What every call about assets may answer.
const ASSETS: &[Code] = &[Code::AssetsUnavailable, Code::AssetsNotReady];

const RGB_INVOICE: &[Code] =
    &[Code::AssetUnknown, Code::ColorableUtxosNeeded, Code::CoinsUnconfirmed, Code::IdempotencyMismatch];

/// What a send of an asset may answer when it begins.
const RGB_SEND: &[Code] = &[
    Code::InvalidInvoice,
    Code::WrongNetwork,
    Code::InvoiceExpired,
    Code::SelfPayment,
    Code::PaymentInProgress,
    Code::AlreadyPaid,
    Code::AmountBelowDust,
    Code::AssetUnknown,
    Code::AssetsShareCoin,
    Code::CoinsLeased,
    Code::InsufficientAssets,
    Code::ColoredBtcLow,
    Code::ColorableUtxosNeeded,
    Code::CoinsUnconfirmed,
    Code::FeeRateOutOfRange,
    Code::FeeTooHigh,
    Code::TooManyOpenRequests,
    Code::RequestExpired,
    Code::IdempotencyMismatch,
    Code::PayoutsHalted,
];

/// What an operation may answer besides what all do. `None` for one that nobody has thought about.
#[must_use]
pub fn of(operation_id: &str) -> Option<Vec<Code>> {
    if let Some(codes) = of_assets(operation_id) {
        return Some(codes);
    }
    Some(match operation_id {
        // Where it is turned off.
        proxy::OPERATION => vec![Code::NotFound],
        "walletRegister" => vec![Code::KeychainInUse, Code::TooManyWallets],
        "walletAddress" | "walletBtcBalance" | "capabilities" | "spendingGrants" => Vec::new(),
        "createInvoice" => INVOICE.to_vec(),
        "payInvoiceBegin" => PAY.to_vec(),
        "payInvoice" => [PAY, SPEND].concat(),
        "spendingGrantGive" => vec![
            Code::NotFound,
            Code::InvalidPsbt,
            Code::PsbtNotSigned,
            Code::PsbtAltered,
            Code::InvalidSignature,
            Code::RequestExpired,
        ],
        "payInvoiceEnd" => PAY_END.to_vec(),
        "feeEstimate" => ESTIMATE.to_vec(),
        "decode" => vec![Code::InvalidAddress, Code::InvalidInvoice, Code::WrongNetwork, Code::AssetsUnavailable],
        "walletListTransactions"
        | "listTransactions"
        | "unusedAddresses"
        | "onchainSendList"
        | "deposits"
        | "events"
        | "listPayments" => vec![Code::InvalidRequest],
        "onchainReceive" => Vec::new(),
        "onchainReceiveNew" => vec![Code::IdempotencyMismatch],
        "receive" => [ASSETS, RGB_INVOICE].concat(),
        "walletSendBtcBegin" => BEGIN.to_vec(),
        "onchainSendBegin" => [BEGIN, WITHDRAW, ASSETS, RGB_SEND].concat(),
        "payBegin" => [BEGIN, PAY, ASSETS, RGB_SEND, &[Code::AssetLightningUnavailable]].concat(),
        "onchainSendCancel" => vec![Code::NotFound, Code::NotCancellable],
        "walletSendBtcEnd" => END.to_vec(),
        "onchainSendEnd" => [END, &[Code::LightningUnavailable, Code::LightningNotReady]].concat(),
        "payEnd" => [END, PAY_END].concat(),
        "onchainSendBumpBegin" => BUMP.to_vec(),
        "onchainSendBumpEnd" => [END, &[Code::NotFound, Code::AlreadyConfirmed]].concat(),
        "settle" => vec![Code::ChainUnavailable, Code::SyncTimeout],
        "settleBegin" => {
            [BEGIN, &[Code::AssetLightningUnavailable, Code::LightningUnavailable, Code::LightningNotReady]].concat()
        }
        "settleEnd" => END.to_vec(),
        "walletFeeEstimation" => vec![Code::ChainUnavailable],
        "walletRefresh" => vec![Code::ChainUnavailable, Code::SyncTimeout, Code::AssetsNotReady],
        "walletSync" => vec![Code::ChainUnavailable, Code::SyncTimeout],
        "onchainSendGet"
        | "settleGet"
        | "lightningOnchainSendGet"
        | "requestGet"
        | "receiveRequest"
        | "sendRequest"
        | "sendRequestAuthorization" => vec![Code::NotFound],
        "requestCancel" => vec![Code::NotFound, Code::NotCancellable],
        "adminNode" | "adminPeers" | "adminChannels" | "adminReserve" | "adminReserveNew" => NODE.to_vec(),
        "adminTrialBalance" | "adminLiquidity" => Vec::new(),
        "adminProfitAndLoss" | "adminSuspense" | "adminEvents" => vec![Code::InvalidRequest],
        "adminResolve" => {
            vec![Code::NotFound, Code::WalletNotRegistered, Code::OutcomeUnknown, Code::IdempotencyMismatch]
        }
        "adminConnect" => [NODE, &[Code::NodeRefused]].concat(),
        "adminOpenChannel" => [NODE, &[Code::NodeRefused, Code::OutcomeUnknown, Code::IdempotencyMismatch]].concat(),
        "adminCloseChannel" | "adminChannelFees" => [NODE, &[Code::NodeRefused, Code::NotFound]].concat(),
        _ => return None,
    })
}

/// The same for operations on assets.
fn of_assets(operation_id: &str) -> Option<Vec<Code>> {
    Some(match operation_id {
        "balance" => Vec::new(),
        "walletListUnspents" => vec![Code::InvalidRequest, Code::AssetsNotReady],
        "walletCreateUtxosBegin" => [BEGIN, ASSETS, &[Code::ColorableUtxosThere]].concat(),
        "walletCreateUtxosEnd" => [END, &[Code::AssetsUnavailable]].concat(),
        "walletListAssets" => ASSETS.to_vec(),
        "walletAssetBalance" => [ASSETS, &[Code::AssetUnknown]].concat(),
        "walletIssueAssetNia" => {
            const ISSUE: &[Code] =
                &[Code::ColorableUtxosNeeded, Code::CoinsUnconfirmed, Code::NotIssued, Code::IdempotencyMismatch];
            [ASSETS, ISSUE].concat()
        }
        "walletBlindReceive" | "walletWitnessReceive" => [ASSETS, RGB_INVOICE].concat(),
        "walletSendBegin" => [ASSETS, RGB_SEND].concat(),
        "walletSendEnd" => [END, &[Code::AssetsUnavailable]].concat(),
        "walletListTransfers" | "listLightningTransfers" => vec![Code::InvalidRequest],
        "walletFailTransfers" => [ASSETS, &[Code::NotFound, Code::NotCancellable]].concat(),
        "walletBeginExport" => {
            [ASSETS, &[Code::IdempotencyMismatch, Code::RequestExpired, Code::TooManyOpenRequests]].concat()
        }
        "walletEndExport" => [ASSETS, SIGNED].concat(),
        "walletDecodeRgbInvoice" => vec![Code::AssetsUnavailable, Code::InvalidInvoice],
        _ => return None,
    })
}
