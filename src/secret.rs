//! Text that must not be shown: it prints as `***` wherever it is printed. And files that only their owner may read.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};

#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Whoever calls this keeps it out of logs, errors and answers.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "***" })
    }
}

/// An address without what stands in it to get in: neither user and password nor a query are shown.
#[must_use]
pub fn without_login(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _query)| (rest, "?***"));
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
    let authority = authority.rsplit_once('@').map_or_else(|| authority.to_owned(), |(_, host)| format!("***@{host}"));
    let path = path.map(|path| format!("/{path}")).unwrap_or_default();
    format!("{scheme}://{authority}{path}{query}")
}

/// What a group and all others may do with a file.
const OF_OTHERS: u32 = 0o077;

/// From now on this process makes files and folders that only its owner reads: those of SQLite and of rgb-lib, too, which don't ask.
pub fn keep_new_files_private() {
    let _before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(OF_OTHERS));
}

/// Makes a folder, and those that it is in, for their owner only. One that is there stays as it is.
///
/// # Errors
/// When it can't be made.
pub fn make_private_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Takes a file or a folder away from all but its owner. One that is not there is nobody's; one that belongs to somebody else can't be
/// changed, and the log says so.
pub fn keep_private(path: &Path) {
    let Ok(found) = fs::metadata(path) else { return };
    let mut permissions = found.permissions();
    let before = permissions.mode();
    if before & OF_OTHERS == 0 {
        return;
    }
    permissions.set_mode(before & !OF_OTHERS);
    let (shown, mode) = (path.display(), format!("{:o}", before & 0o777));
    match fs::set_permissions(path, permissions) {
        Ok(()) => tracing::warn!(path = %shown, mode, "others could read this; now only its owner can"),
        Err(error) => {
            tracing::warn!(path = %shown, mode, %error, "others can read this, and that could not be changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_gets_in() {
        for (url, shown) in [
            ("http://127.0.0.1:3002", "http://127.0.0.1:3002"),
            ("https://u:hunter2@h.example/api", "https://***@h.example/api"),
            ("ssl://u:p@ss@h.example:50002", "ssl://***@h.example:50002"),
            ("https://h.example/a@b?key=hunter2", "https://h.example/a@b?***"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(without_login(url), shown);
        }
    }

    #[test]
    fn what_others_could_read_is_taken_away_from_them() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, file) = (folder.path().join("a/b"), folder.path().join("a/b/file"));
        make_private_folder(&inner).unwrap();
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        keep_private(&file);
        keep_private(&inner.join("nothing"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.path().join("a")), mode(&inner), mode(&file)), (0o700, 0o700, 0o600));
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        assert_eq!(secret.expose(), "hunter2");
    }
}
