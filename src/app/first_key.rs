//! The operator's first key, in a file that only the gateway's user can read.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::StartError;
use crate::flows::{Flows, key_admin};
use crate::secret::Secret;

/// Only its owner may read it.
const MODE: u32 = 0o600;

/// Makes a key and writes it down, unless one for operators was ever made. The file is there before the key is in force: a start that is
/// killed in between is made again by the next one, and no key is in force that nobody has.
pub(super) async fn write(flows: &Flows, path: &Path) -> Result<(), StartError> {
    let cant = |error: io::Error| StartError::Settings(format!("admin.first_key_file: {}: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Two gateways that start at once must not write different keys into one file.
    let one_at_a_time = File::open(folder).map_err(cant)?;
    one_at_a_time.lock().map_err(cant)?;
    let made = key_admin::make_first(flows, |secret| keep(secret, path).map_err(cant)).await?;
    if let Some(key) = made {
        tracing::info!(%key, path = %path.display(), "the operator's first key was written; it is shown nowhere else");
    }
    Ok(())
}

/// Whoever finds the file finds all of it, and what was there before is replaced.
fn keep(secret: &Secret, path: &Path) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(MODE).open(&draft)?;
    writeln!(file, "{}", secret.expose())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}
