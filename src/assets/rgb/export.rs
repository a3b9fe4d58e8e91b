//! What a wallet's owner leaves with: a copy of its folder, sealed by the library with a password.

use std::fs;
use std::path::{Path, PathBuf};

use super::{misconfigured, nonsense};
use crate::ports::PortError;

/// The folder of an export in the making, beside that of the wallet. The library puts a copy into it that is not sealed yet.
const FOLDER: &str = "export";
const SEALED: &str = "sealed";
/// An export is in memory while it is handed out.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// A place for an export, which is gone with everything in it when this is dropped.
pub(super) struct Draft {
    folder: PathBuf,
}

impl Draft {
    /// In the folder that is the wallet's alone.
    pub(super) fn within(place: &Path) -> Result<Self, PortError> {
        clear(place)?;
        let folder = place.join(FOLDER);
        fs::create_dir(&folder).map_err(misconfigured)?;
        Ok(Self { folder })
    }

    pub(super) fn sealed(&self) -> PathBuf {
        self.folder.join(SEALED)
    }

    pub(super) fn read(&self) -> Result<Vec<u8>, PortError> {
        let file = self.sealed();
        let bytes = fs::metadata(&file).map_err(nonsense)?.len();
        if bytes > MOST_BYTES {
            return Err(misconfigured(format!(
                "an export of {bytes} bytes is more than is handed out; copy the wallet's folder while the gateway is stopped"
            )));
        }
        fs::read(&file).map_err(nonsense)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::error!(%error, folder = %self.folder.display(), "an export was left behind, and may not be sealed");
        }
    }
}

/// A kill leaves a draft behind.
pub(super) fn clear(place: &Path) -> Result<(), PortError> {
    match fs::remove_dir_all(place.join(FOLDER)) {
        Ok(()) => {
            tracing::warn!("an export was cut off by a kill; what it left behind is removed");
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(misconfigured(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_draft_stays() {
        let place = tempfile::tempdir().unwrap();
        let draft = Draft::within(place.path()).unwrap();
        fs::write(draft.folder.join("not-sealed-yet"), "a secret").unwrap();
        assert!(draft.read().is_err(), "there is nothing sealed");
        fs::write(draft.sealed(), "sealed").unwrap();
        assert_eq!(draft.read().unwrap(), b"sealed");
        drop(draft);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        // A kill drops nothing: the next one clears.
        fs::create_dir(place.path().join(FOLDER)).unwrap();
        drop(Draft::within(place.path()).unwrap());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
