//! Everything that can be answered instead of success, as one closed list. Each dialect of the API maps all of it.

use tokio::task::JoinError;

use crate::domain::policy::{BadSignatureTime, FeeRefusal};
use crate::domain::psbt::PsbtProblem;
use crate::domain::wallet::BadKeys;
use crate::money::Sat;
use crate::ports::PortError;
use crate::ports::assets::{AssetError, Refusal};
use crate::store::{Retryable, StoreError};

/// The stable name of an answer. Never renamed, never given a second meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    InvalidRequest,
    InvalidKeys,
    InvalidAddress,
    WrongNetwork,
    WalletHeadersMissing,
    WalletNotRegistered,
    KeychainInUse,
    Unauthorized,
    Forbidden,
    NotLocal,
    TooManyWallets,
    NotFound,
    MethodNotAllowed,
    BodyTooLarge,
    RateLimited,
    TooManyConnections,
    AmountBelowDust,
    InsufficientFunds,
    CoinsLeased,
    CoinsUnconfirmed,
    TooManyInputs,
    FeeRateOutOfRange,
    FeeTooHigh,
    TooManyOpenRequests,
    InvalidPsbt,
    PsbtNotSigned,
    PsbtAltered,
    PsbtUnknown,
    InvalidSignature,
    RequestExpired,
    InputsSpent,
    AlreadyConfirmed,
    ChangeSpent,
    BumpTooSmall,
    NotBroadcast,
    IdempotencyMismatch,
    InvalidInvoice,
    AssetInvoice,
    InvoiceExpired,
    AlreadyPaid,
    PaymentInProgress,
    SelfPayment,
    SpendingNotGranted,
    PaymentAboveLimit,
    SpendingLimitExceeded,
    FeeLimitTooLow,
    NoLiquidity,
    ReserveLow,
    NotCancellable,
    AssetLightningUnavailable,
    LightningUnavailable,
    LightningNotReady,
    AssetsUnavailable,
    AssetsNotReady,
    AssetsShareCoin,
    AssetUnknown,
    ColorableUtxosNeeded,
    ColorableUtxosThere,
    InsufficientAssets,
    ColoredBtcLow,
    NotBumpable,
    NotIssued,
    NodeRefused,
    OutcomeUnknown,
    PayoutsHalted,
    ChainUnavailable,
    ChainNotSynced,
    SyncTimeout,
    StoreUnavailable,
    Timeout,
    Internal,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of the request is wrong. The field is named as it stands on the wire.
    #[error("{field}: {reason}")]
    Field { code: Code, field: &'static str, reason: String },
    /// What was asked for can't be done as things stand.
    #[error("{detail}")]
    Refused { code: Code, detail: String },
    /// What was asked for can't be done now, and in so many seconds it can.
    #[error("{detail}")]
    Later { code: Code, detail: String, seconds: u32 },
    #[error(transparent)]
    Psbt(#[from] PsbtProblem),
    #[error(transparent)]
    Fee(#[from] FeeRefusal),
    #[error(transparent)]
    SignatureTime(#[from] BadSignatureTime),
    #[error(transparent)]
    Keys(#[from] BadKeys),
    #[error("the Bitcoin node can't be used now: {0}")]
    Chain(#[from] PortError),
    #[error("the Lightning node can't be used now: {0}")]
    Node(PortError),
    #[error("the RGB engine can't be used now: {0}")]
    Assets(PortError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault of this program. Trying again does not help.
    #[error("a fault of this program: {0}")]
    Internal(String),
}

impl Error {
    /// A task of this program has panicked.
    #[must_use]
    pub fn panicked(task: &str, error: &JoinError) -> Self {
        Self::Internal(format!("{task}: {error}"))
    }

    #[must_use]
    pub fn field(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Field { code: Code::InvalidRequest, field, reason: reason.into() }
    }

    #[must_use]
    pub fn refused(code: Code, detail: impl Into<String>) -> Self {
        Self::Refused { code, detail: detail.into() }
    }

    #[must_use]
    pub fn insufficient(needed: Sat, there: Sat) -> Self {
        Self::refused(Code::InsufficientFunds, format!("{needed} sat are needed and {there} sat are there"))
    }

    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Field { code, .. } | Self::Refused { code, .. } | Self::Later { code, .. } => *code,
            Self::Psbt(problem) => psbt_code(problem),
            Self::Fee(FeeRefusal::RateTooLow | FeeRefusal::RateTooHigh(_)) => Code::FeeRateOutOfRange,
            Self::Fee(FeeRefusal::FeeTooHigh { .. } | FeeRefusal::ShareTooHigh { .. }) => Code::FeeTooHigh,
            Self::SignatureTime(_) => Code::InvalidRequest,
            Self::Keys(_) => Code::InvalidKeys,
            Self::Chain(_) => Code::ChainUnavailable,
            Self::Node(_) => Code::LightningNotReady,
            Self::Assets(_) => Code::AssetsNotReady,
            Self::Store(error) => store_code(error),
            Self::Internal(_) => Code::Internal,
        }
    }

    /// The field to name in the answer, if one is to blame.
    #[must_use]
    pub fn field_name(&self) -> Option<&'static str> {
        match self {
            Self::Field { field, .. } => Some(field),
            Self::Psbt(_) => Some("signed_psbt"),
            Self::Fee(_) => Some("fee_rate"),
            Self::SignatureTime(_) => Some("expires_in_seconds"),
            Self::Keys(keys) => Some(keys.header()),
            Self::Refused { .. }
            | Self::Later { .. }
            | Self::Chain(_)
            | Self::Node(_)
            | Self::Assets(_)
            | Self::Store(_)
            | Self::Internal(_) => None,
        }
    }
}

/// What an engine refuses, with the call that helps.
impl From<AssetError> for Error {
    fn from(error: AssetError) -> Self {
        match error {
            AssetError::Port(error) => Self::Assets(error),
            AssetError::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::UnknownAsset(_) => Self::refused(Code::AssetUnknown, detail),
            Refusal::NoFreeCoin => Self::refused(
                Code::ColorableUtxosNeeded,
                format!(
                    "{detail}; POST /wallet/createutxosbegin makes some, which can be used once they are in a block"
                ),
            ),
            Refusal::NotEnough { .. } => Self::refused(Code::InsufficientAssets, detail),
            Refusal::BitcoinLow { .. } => Self::refused(
                Code::ColoredBtcLow,
                format!("{detail}; POST /wallet/createutxosbegin with a larger size makes coins that hold more"),
            ),
            Refusal::Invalid { what: "invoice", reason } => {
                Self::Field { code: Code::InvalidInvoice, field: "invoice", reason }
            }
            Refusal::Invalid { what, reason } => Self::field(what, reason),
            Refusal::NoSuchTransfer => Self::refused(Code::NotFound, detail),
            Refusal::TooLate => Self::refused(Code::NotCancellable, detail),
            Refusal::SharedCoin { .. } => Self::refused(
                Code::AssetsShareCoin,
                format!("{detail}; POST /wallet/sendbegin sends some of each together, with `more`"),
            ),
            Refusal::WouldShareCoin { .. } => {
                Self::refused(Code::AssetsShareCoin, format!("{detail}; send them one after the other"))
            }
            Refusal::Broken => Self::refused(Code::AssetsNotReady, detail),
        }
    }
}

const fn psbt_code(problem: &PsbtProblem) -> Code {
    match problem {
        PsbtProblem::NotAPsbt(_) => Code::InvalidPsbt,
        PsbtProblem::NotSigned(_) => Code::PsbtNotSigned,
        PsbtProblem::Altered => Code::PsbtAltered,
        PsbtProblem::BadSighash(_) | PsbtProblem::BadSignature(_) => Code::InvalidSignature,
        PsbtProblem::Incomplete(_) => Code::Internal,
    }
}

const fn store_code(error: &StoreError) -> Code {
    match error {
        StoreError::Unavailable(_) | StoreError::InDoubt(_) | StoreError::Conflict(_) | StoreError::Sql(_) => {
            Code::StoreUnavailable
        }
        StoreError::Ledger(_) => Code::InsufficientFunds,
        StoreError::Fenced { .. }
        | StoreError::Corrupt(_)
        | StoreError::Illegal(_)
        | StoreError::WrongNetwork { .. }
        | StoreError::Locked(_)
        | StoreError::Misconfigured(_) => Code::Internal,
    }
}

impl Retryable for Error {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Field { .. }
            | Self::Refused { .. }
            | Self::Later { .. }
            | Self::Psbt(_)
            | Self::Fee(_)
            | Self::SignatureTime(_)
            | Self::Keys(_)
            | Self::Chain(_)
            | Self::Node(_)
            | Self::Assets(_)
            | Self::Internal(_) => false,
        }
    }
}
