//! The port to other people's consignment proxies: a payee names one in its invoice, is brought the consignment there, and says there
//! whether it takes it.

use async_trait::async_trait;
use bitcoin::Txid;

use super::PortError;

/// A consignment on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    pub recipient: String,
    pub txid: Txid,
    /// The output that pays the recipient, when it is a new coin.
    pub vout: Option<u32>,
    pub bytes: Vec<u8>,
}

/// What became of a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brought {
    /// It is there, now or since an earlier call.
    Taken,
    /// It will never be taken: something else is there under that name, or it is too large.
    Refused { reason: String },
}

/// Calls only what strangers may name: an endpoint stands in an invoice that anybody can write.
#[async_trait]
pub trait Courier: Send + Sync {
    /// Says what is wrong with an endpoint, as far as that can be told without asking anybody.
    ///
    /// # Errors
    /// The reason, for people.
    fn check(&self, endpoint: &str) -> Result<(), String>;

    /// Brings a consignment. Asked again, it answers the same.
    async fn bring(&self, endpoint: &str, parcel: &Parcel) -> Result<Brought, PortError>;

    /// What the recipient says; nothing while it has said nothing.
    async fn answer(&self, endpoint: &str, recipient: &str) -> Result<Option<bool>, PortError>;
}
