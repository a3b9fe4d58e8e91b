//! What wallets of RGB hand each other through this gateway. A file is stored once under its name and never changed; nobody is asked
//! who he is. The one exception are recipients that stand in invoices of this gateway: only the gateway acknowledges for those.

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bitcoin::hashes::{Hash, sha256};
use serde::{Deserialize, Serialize};

use super::{Error, Flows};
use crate::clock::Timestamp;
use crate::store::consignments::{self, Acknowledged, Consignment, Label, NewFile, Posted};
use crate::store::{StoreError, Tx, Write};

/// What one transaction forgets of each kind: each of them may be megabytes long.
const BATCH: u32 = 20;
/// The largest that a file may be allowed to be. It is in memory several times while it is stored.
const LARGEST: u64 = 128 * 1024 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The section `proxy` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyPolicy {
    pub enabled: bool,
    /// The largest consignment, in bytes.
    pub max_consignment_bytes: u64,
    /// The largest medium, in bytes.
    pub max_media_bytes: u64,
    /// How long what strangers have stored is kept.
    pub retention_days: NonZeroU32,
    /// What strangers may have stored together, in bytes.
    pub max_total_bytes: u64,
    /// Calls of one address.
    pub per_client_per_second: NonZeroU32,
    /// Calls of one address that bring a file.
    pub uploads_per_client_per_minute: NonZeroU32,
    /// Whether a proxy in front of the gateway says who calls.
    pub forwarded_for: bool,
}

impl Default for ProxyPolicy {
    fn default() -> Self {
        let literal = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            enabled: true,
            max_consignment_bytes: 16 * 1024 * 1024,
            max_media_bytes: 5 * 1024 * 1024,
            retention_days: literal(30),
            max_total_bytes: 4 * 1024 * 1024 * 1024,
            per_client_per_second: literal(20),
            uploads_per_client_per_minute: literal(30),
            forwarded_for: false,
        }
    }
}

impl ProxyPolicy {
    /// # Errors
    /// Which key can't be meant, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, bytes) in
            [("max_consignment_bytes", self.max_consignment_bytes), ("max_media_bytes", self.max_media_bytes)]
        {
            if !(1..=LARGEST).contains(&bytes) {
                return Err((key, format!("must be from 1 to {LARGEST}")));
            }
        }
        Ok(())
    }

    /// The largest file that anybody may bring.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.max_consignment_bytes.max(self.max_media_bytes)
    }

    fn most(&self) -> i64 {
        i64::try_from(self.max_total_bytes).unwrap_or(i64::MAX)
    }

    fn retention(&self) -> Duration {
        DAY.saturating_mul(self.retention_days.get())
    }
}

/// Stores a consignment for its recipient. The same file for another transaction is another consignment.
///
/// # Errors
/// When the store can't be used.
pub async fn post(flows: &Flows, label: Label, bytes: &[u8]) -> Result<Posted, Error> {
    let (file, most) = (read(bytes)?, flows.policy().proxy.most());
    let posted = flows.store().write(Post { label, file, most }).await?;
    if posted == Posted::Stored {
        flows.wake_assets();
    }
    Ok(posted)
}

/// Stores a medium under its name.
///
/// # Errors
/// When the store can't be used.
pub async fn post_media(flows: &Flows, attachment_id: String, bytes: &[u8]) -> Result<Posted, Error> {
    let (file, most) = (read(bytes)?, flows.policy().proxy.most());
    Ok(flows.store().write(PostMedia { attachment_id, file, most }).await?)
}

fn read(bytes: &[u8]) -> Result<NewFile, StoreError> {
    let size = i64::try_from(bytes.len()).map_err(|_| StoreError::Corrupt("a file is too long".to_owned()))?;
    Ok(NewFile { hash: sha256::Hash::hash(bytes).to_string(), size, content: BASE64_STANDARD.encode(bytes) })
}

/// What is there for a recipient, without the file.
///
/// # Errors
/// When the store can't be used.
pub async fn find(flows: &Flows, recipient_id: &str) -> Result<Option<Consignment>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(consignments::find(&mut conn, recipient_id).await?)
}

/// The file, in base64.
///
/// # Errors
/// When the store can't be used.
pub async fn content(flows: &Flows, recipient_id: &str) -> Result<Option<String>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(consignments::content(&mut conn, recipient_id).await?)
}

/// How long a medium is.
///
/// # Errors
/// When the store can't be used.
pub async fn media_size(flows: &Flows, attachment_id: &str) -> Result<Option<u64>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(consignments::media_size(&mut conn, attachment_id).await?)
}

/// A medium, in base64.
///
/// # Errors
/// When the store can't be used.
pub async fn media(flows: &Flows, attachment_id: &str) -> Result<Option<String>, Error> {
    let mut conn = flows.store().read().await?;
    Ok(consignments::media_content(&mut conn, attachment_id).await?)
}

/// Keeps what somebody says for a recipient: whoever knows its name, which stands in the invoice. What is said for an invoice of this
/// gateway is not kept: `assets/accept.rs` says that.
///
/// # Errors
/// When the store can't be used.
pub async fn acknowledge(flows: &Flows, recipient_id: String, ack: bool) -> Result<Acknowledged, Error> {
    Ok(flows.store().write(Acknowledge { recipient_id, ack }).await?)
}

/// Forgets what strangers have stored too long ago, a batch of it; answers how much there was.
///
/// # Errors
/// When the store can't be used.
pub async fn sweep(flows: &Flows) -> Result<usize, Error> {
    let retention = i64::try_from(flows.policy().proxy.retention().as_millis()).unwrap_or(i64::MAX);
    let before = Timestamp::from_millis(flows.now().millis().saturating_sub(retention));
    let mut conn = flows.store().read().await?;
    let is_due = consignments::any_before(&mut conn, before).await?;
    drop(conn);
    // Asked every second: no transaction for nothing.
    if !is_due {
        return Ok(0);
    }
    Ok(flows.store().write(Sweep { before }).await?)
}

struct Post {
    label: Label,
    file: NewFile,
    most: i64,
}

#[async_trait]
impl Write for Post {
    type Output = Posted;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Posted, StoreError> {
        consignments::post(tx, &self.label, &self.file, self.most).await
    }
}

struct PostMedia {
    attachment_id: String,
    file: NewFile,
    most: i64,
}

#[async_trait]
impl Write for PostMedia {
    type Output = Posted;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Posted, StoreError> {
        consignments::post_media(tx, &self.attachment_id, &self.file, self.most).await
    }
}

struct Acknowledge {
    recipient_id: String,
    ack: bool,
}

#[async_trait]
impl Write for Acknowledge {
    type Output = Acknowledged;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Acknowledged, StoreError> {
        consignments::acknowledge(tx, &self.recipient_id, self.ack, false).await
    }
}

struct Sweep {
    before: Timestamp,
}

#[async_trait]
impl Write for Sweep {
    type Output = usize;
    type Error = StoreError;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<usize, StoreError> {
        consignments::forget_before(tx, self.before, BATCH).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_largest_file_of_nothing_or_of_everything_is_refused() {
        assert_eq!(ProxyPolicy::default().check(), Ok(()));
        let none = ProxyPolicy { max_media_bytes: 0, ..ProxyPolicy::default() };
        assert_eq!(none.check().unwrap_err().0, "max_media_bytes");
        let all = ProxyPolicy { max_consignment_bytes: u64::MAX, ..ProxyPolicy::default() };
        assert_eq!(all.check().unwrap_err().0, "max_consignment_bytes");
    }
}
