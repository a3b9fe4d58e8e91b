//! What wallets of RGB hand each other through this gateway. A file is stored once under its name and never changed; nobody is asked
//! who he is. What is for invoices of this gateway is in the database, within bounds of its wallet, and only the gateway acknowledges for
//! it. What strangers bring each other is in a folder.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bitcoin::hashes::{Hash, sha256};
use serde::{Deserialize, Serialize};

use super::{Error, Flows};
use crate::clock::Timestamp;
use crate::store::consignments::{self, Acknowledged, Consignment, Label, NewFile, Posted, Standing};
use crate::store::shelf::{self, Shelf};
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
    /// Empty: where there are assets, whose payers need it.
    pub enabled: Option<bool>,
    /// Whether media are taken. Nothing of ours needs any.
    pub media: bool,
    /// Where what strangers bring is kept.
    pub data_dir: PathBuf,
    /// The largest consignment, in bytes.
    pub max_consignment_bytes: u64,
    /// The largest medium, in bytes.
    pub max_media_bytes: u64,
    /// How long what strangers have stored is kept, and what was brought for an invoice of ours that has ended.
    pub retention_days: NonZeroU32,
    /// What strangers may have stored together, in bytes.
    pub max_total_bytes: u64,
    /// What may be stored for the invoices of one wallet, in bytes.
    pub max_wallet_bytes: u64,
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
            enabled: None,
            media: false,
            data_dir: PathBuf::from("data/consignments"),
            max_consignment_bytes: 16 * 1024 * 1024,
            max_media_bytes: 5 * 1024 * 1024,
            retention_days: literal(30),
            max_total_bytes: 4 * 1024 * 1024 * 1024,
            max_wallet_bytes: 256 * 1024 * 1024,
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

    /// Whether the path is there at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.enabled.unwrap_or(false)
    }

    /// The largest file that anybody may bring.
    #[must_use]
    pub fn largest(&self) -> u64 {
        if self.media { self.max_consignment_bytes.max(self.max_media_bytes) } else { self.max_consignment_bytes }
    }

    fn retention(&self) -> Duration {
        DAY.saturating_mul(self.retention_days.get())
    }
}

/// Stores a consignment for its recipient. The same file for another transaction is another consignment.
///
/// # Errors
/// When the store can't be used.
pub async fn post(flows: &Flows, label: Label, bytes: Vec<u8>) -> Result<Posted, Error> {
    let mut conn = flows.store().read().await?;
    let (standing, _owner) = consignments::standing(&mut conn, &label.recipient_id).await?;
    let there = consignments::find(&mut conn, &label.recipient_id).await?;
    let used = consignments::used(&mut conn).await?;
    drop(conn);
    if let Some(there) = there {
        let is_same = there.hash == hash(&bytes) && there.txid == label.txid && there.vout == label.vout;
        return Ok(if is_same { Posted::Same } else { Posted::Differs });
    }
    match standing {
        Standing::Closed => return Ok(Posted::Closed),
        Standing::Open => return post_own(flows, label, &bytes).await,
        Standing::Strangers => {}
    }
    let (most, at) = (room_beside(flows, used), flows.now());
    on_shelf(flows, Posted::Full, move |shelf| {
        shelf.post(&label, &shelf::Brought { hash: hash(&bytes), bytes: &bytes, at, most })
    })
    .await
}

async fn post_own(flows: &Flows, label: Label, bytes: &[u8]) -> Result<Posted, Error> {
    let most = i64::try_from(flows.policy().proxy.max_wallet_bytes).unwrap_or(i64::MAX);
    let posted = flows.store().write(Post { label, file: read(bytes)?, most }).await?;
    if posted == Posted::Stored {
        flows.wake_assets();
    }
    Ok(posted)
}

/// Stores a medium under its name.
///
/// # Errors
/// When the store can't be used.
pub async fn post_media(flows: &Flows, attachment_id: String, bytes: Vec<u8>) -> Result<Posted, Error> {
    let mut conn = flows.store().read().await?;
    let there = consignments::media_hash(&mut conn, &attachment_id).await?;
    let used = consignments::used(&mut conn).await?;
    drop(conn);
    if let Some(there) = there {
        return Ok(if there == hash(&bytes) { Posted::Same } else { Posted::Differs });
    }
    let (most, at) = (room_beside(flows, used), flows.now());
    on_shelf(flows, Posted::Full, move |shelf| {
        shelf.post_media(&attachment_id, &shelf::Brought { hash: hash(&bytes), bytes: &bytes, at, most })
    })
    .await
}

/// What strangers may have in the folder, beside what they stored in the database before there was one.
fn room_beside(flows: &Flows, used: i64) -> u64 {
    flows.policy().proxy.max_total_bytes.saturating_sub(u64::try_from(used).unwrap_or(0))
}

/// Does something with the folder, in a thread that may wait for a disk. Where there is none nothing is in it.
async fn on_shelf<T: Send + 'static>(
    flows: &Flows,
    without: T,
    job: impl FnOnce(&Shelf) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Error> {
    let Some(shelf) = flows.shelf().cloned() else { return Ok(without) };
    let done = tokio::task::spawn_blocking(move || job(&shelf)).await;
    Ok(done.map_err(|error| Error::panicked("the consignments", &error))??)
}

/// What a recipient is to this gateway.
///
/// # Errors
/// When the store can't be used.
pub async fn standing(flows: &Flows, recipient_id: &str) -> Result<Standing, Error> {
    let mut conn = flows.store().read().await?;
    Ok(consignments::standing(&mut conn, recipient_id).await?.0)
}

/// How many bytes strangers have stored.
///
/// # Errors
/// When the store can't be used.
pub async fn used_by_strangers(flows: &Flows) -> Result<u64, Error> {
    let mut conn = flows.store().read().await?;
    let before = u64::try_from(consignments::used(&mut conn).await?).unwrap_or(0);
    Ok(before.saturating_add(flows.shelf().map_or(0, Shelf::used)))
}

fn hash(bytes: &[u8]) -> String {
    sha256::Hash::hash(bytes).to_string()
}

fn read(bytes: &[u8]) -> Result<NewFile, StoreError> {
    let size = i64::try_from(bytes.len()).map_err(|_| StoreError::Corrupt("a file is too long".to_owned()))?;
    Ok(NewFile { hash: hash(bytes), size, content: BASE64_STANDARD.encode(bytes) })
}

/// What is there for a recipient, without the file.
///
/// # Errors
/// When the store can't be used.
pub async fn find(flows: &Flows, recipient_id: &str) -> Result<Option<Consignment>, Error> {
    let mut conn = flows.store().read().await?;
    let found = consignments::find(&mut conn, recipient_id).await?;
    if found.is_some() || consignments::owner(&mut conn, recipient_id).await?.is_some() {
        return Ok(found);
    }
    drop(conn);
    let recipient_id = recipient_id.to_owned();
    on_shelf(flows, None, move |shelf| shelf.find(&recipient_id)).await
}

/// The file, in base64.
///
/// # Errors
/// When the store can't be used.
pub async fn content(flows: &Flows, recipient_id: &str) -> Result<Option<String>, Error> {
    let mut conn = flows.store().read().await?;
    let content = consignments::content(&mut conn, recipient_id).await?;
    if content.is_some() || consignments::owner(&mut conn, recipient_id).await?.is_some() {
        return Ok(content);
    }
    drop(conn);
    let recipient_id = recipient_id.to_owned();
    on_shelf(flows, None, move |shelf| Ok(shelf.content(&recipient_id)?.map(|bytes| BASE64_STANDARD.encode(bytes))))
        .await
}

/// How long a medium is.
///
/// # Errors
/// When the store can't be used.
pub async fn media_size(flows: &Flows, attachment_id: &str) -> Result<Option<u64>, Error> {
    let mut conn = flows.store().read().await?;
    let size = consignments::media_size(&mut conn, attachment_id).await?;
    Ok(size.or_else(|| flows.shelf()?.media_size(attachment_id)))
}

/// A medium, in base64.
///
/// # Errors
/// When the store can't be used.
pub async fn media(flows: &Flows, attachment_id: &str) -> Result<Option<String>, Error> {
    let mut conn = flows.store().read().await?;
    let content = consignments::media_content(&mut conn, attachment_id).await?;
    drop(conn);
    if content.is_some() {
        return Ok(content);
    }
    let attachment_id = attachment_id.to_owned();
    on_shelf(flows, None, move |shelf| Ok(shelf.media(&attachment_id)?.map(|bytes| BASE64_STANDARD.encode(bytes))))
        .await
}

/// Keeps what somebody says for a recipient: whoever knows its name, which stands in the invoice. What is said for an invoice of this
/// gateway is not kept: `assets/accept.rs` says that.
///
/// # Errors
/// When the store can't be used.
pub async fn acknowledge(flows: &Flows, recipient_id: String, ack: bool) -> Result<Acknowledged, Error> {
    let mut conn = flows.store().read().await?;
    let is_own = consignments::owner(&mut conn, &recipient_id).await?.is_some();
    let is_in_database = is_own || consignments::find(&mut conn, &recipient_id).await?.is_some();
    drop(conn);
    if is_in_database {
        return Ok(flows.store().write(Acknowledge { recipient_id, ack }).await?);
    }
    on_shelf(flows, Acknowledged::NoConsignment, move |shelf| shelf.acknowledge(&recipient_id, ack)).await
}

/// Forgets what strangers have stored too long ago, a batch of it, and the files of our own invoices that ended long ago; answers how
/// much there was.
///
/// # Errors
/// When the store can't be used.
pub async fn sweep(flows: &Flows) -> Result<usize, Error> {
    let retention = i64::try_from(flows.policy().proxy.retention().as_millis()).unwrap_or(i64::MAX);
    let before = Timestamp::from_millis(flows.now().millis().saturating_sub(retention));
    let mut conn = flows.store().read().await?;
    let is_due = consignments::any_before(&mut conn, before).await?;
    let is_outlived = consignments::any_outlived(&mut conn, before).await?;
    drop(conn);
    let mut swept = on_shelf(flows, 0, move |shelf| shelf.forget_before(before, BATCH as usize)).await?;
    // Asked every second: no transaction for nothing.
    if is_due || is_outlived {
        swept = swept.saturating_add(flows.store().write(Sweep { before }).await?);
    }
    Ok(swept)
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
        let forgotten = consignments::forget_before(tx, self.before, BATCH).await?;
        Ok(forgotten.saturating_add(consignments::drop_outlived(tx, self.before, BATCH).await?))
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
