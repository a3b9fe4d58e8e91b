//! Which scripts of the colored account rgb-lib's own wallet watches.
//!
//! The library counts the scripts that it gives away, looks at no other, and has no call to move that count. Coins for assets are
//! made by the gateway, on scripts that the gateway counts: so its wallet file is opened here, while the library has it closed.

use std::path::{Path, PathBuf};

use rgb_lib::bdk_wallet::chain::DescriptorExt;
use rgb_lib::bdk_wallet::file_store::Store;
use rgb_lib::bdk_wallet::{ChangeSet, KeychainKind, Wallet};

use super::nonsense;
use super::wallet::Place;
use crate::ports::PortError;
use crate::ports::assets::WalletKeys;

/// How rgb-lib marks and names the file of a wallet without private keys.
const MAGIC: &[u8] = b"bdk_db";
const FILE: &str = "bdk_db_watch_only";

pub(super) fn file(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// The first colored script that is not revealed. Only reads, so the library may have the file open.
pub(super) fn next(file: &Path) -> Result<u32, PortError> {
    let (_, changes) = Store::<ChangeSet>::load(MAGIC, file).map_err(nonsense)?;
    let changes = changes.ok_or_else(|| nonsense("its wallet file is empty"))?;
    let colored = changes.descriptor.as_ref().ok_or_else(|| nonsense("its wallet file names no colored account"))?;
    let last = changes.indexer.last_revealed.get(&colored.descriptor_id());
    Ok(last.map_or(0, |last| last.saturating_add(1)))
}

/// Reveals every colored script below the index, and answers the first that is not revealed.
pub(super) fn colored(place: &Place, keys: &WalletKeys, below: u32) -> Result<u32, PortError> {
    let (mut store, _) = Store::<ChangeSet>::load(MAGIC, file(&place.wallet_folder(keys))).map_err(nonsense)?;
    let wallet = Wallet::load().load_wallet(&mut store).map_err(nonsense)?;
    let mut wallet = wallet.ok_or_else(|| nonsense("its wallet file is empty"))?;
    let next =
        |wallet: &Wallet| wallet.derivation_index(KeychainKind::External).map_or(0, |last| last.saturating_add(1));
    if below > next(&wallet) {
        drop(wallet.reveal_addresses_to(KeychainKind::External, below - 1));
        wallet.persist(&mut store).map_err(nonsense)?;
    }
    Ok(next(&wallet))
}
