//! The seed of the node, and the number that tells an old database from the newest.
//!
//! The generation is a number in the database and in a file beside the seed. It is raised at each start, every minute, and at the
//! end: in the database first, then in the file. So the file is never ahead of the database that it was written for, wherever
//! the process dies; a database that is behind the file was copied back. One that is ahead of the file is right: another
//! machine ran it since.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bitcoin::hex::{DisplayHex as _, FromHex as _};

use super::config::Config;
use super::error::LdkError;
use crate::secret::{keep_private, make_private_folder};

/// 32 bytes from which every key of the node is derived. It does not print.
pub struct Seed(pub(super) [u8; 32]);

/// Longer than any right one: a wrong path may name anything.
const LONGEST: u64 = 256;

impl Seed {
    /// From the configuration, or from its file, which is made when there is none.
    ///
    /// # Errors
    /// When it can't be read or is no seed.
    pub fn find(config: &Config) -> Result<Self, LdkError> {
        match &config.seed {
            Some(seed) if !seed.is_empty() => Self::parse(seed.expose(), "node.ldk.seed"),
            _ => Self::from_file(&config.seed_file),
        }
    }

    fn from_file(path: &Path) -> Result<Self, LdkError> {
        match read(path)? {
            Some(text) => {
                keep_private(path);
                Self::parse(&text, &path.display().to_string())
            }
            None => Self::make(path),
        }
    }

    fn parse(text: &str, place: &str) -> Result<Self, LdkError> {
        let bytes = <[u8; 32]>::from_hex(text.trim());
        bytes.map(Self).map_err(|_| LdkError::Misconfigured(format!("{place} is not 64 hexadecimal digits")))
    }

    /// On the disk before anybody hears of it.
    fn make(path: &Path) -> Result<Self, LdkError> {
        let seed = Self(rand::random());
        let text = format!("{}\n", seed.0.to_lower_hex_string());
        write_durably(path, &text, OpenOptions::new().create_new(true))?;
        tracing::info!(path = %path.display(), "made a new seed for the Lightning node: keep a copy of it");
        Ok(seed)
    }
}

/// A file of the node's, named as its seed.
#[must_use]
pub fn beside(config: &Config, extension: &str) -> PathBuf {
    let folder = config.data_dir.clone().or_else(|| config.seed_file.parent().map(Path::to_path_buf));
    let name = config.seed_file.file_stem().unwrap_or_else(|| "node".as_ref()).to_owned();
    folder.unwrap_or_default().join(name).with_extension(extension)
}

/// The file with the generation.
#[derive(Clone, Debug)]
pub struct Generation {
    path: PathBuf,
}

impl Generation {
    #[must_use]
    pub fn beside(config: &Config) -> Self {
        Self { path: beside(config, "generation") }
    }

    /// The newest number that this machine has seen.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn newest(&self) -> Result<i64, LdkError> {
        let Some(text) = read(&self.path)? else { return Ok(0) };
        let number = text.trim().parse();
        number.map_err(|_| LdkError::Misconfigured(format!("{} does not hold a number", self.path.display())))
    }

    /// Refuses a database that is older than this machine has seen.
    ///
    /// # Errors
    /// When it is, or the file can't be read.
    pub fn check(&self, database: i64) -> Result<(), LdkError> {
        let file = self.newest()?;
        if database < file {
            return Err(LdkError::OldDatabase { database, file, path: self.path.clone() });
        }
        if database > file.saturating_add(1) {
            tracing::warn!(
                database,
                file,
                "the node ran elsewhere since it ran here: make sure that it does not run there now"
            );
        }
        Ok(())
    }

    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, generation: i64) -> Result<(), LdkError> {
        let next = self.path.with_extension("generation.next");
        write_durably(&next, &format!("{generation}\n"), OpenOptions::new().create(true).truncate(true))?;
        std::fs::rename(&next, &self.path).map_err(|error| LdkError::File { path: self.path.clone(), error })
    }
}

fn read(path: &Path) -> Result<Option<String>, LdkError> {
    let fail = |error| LdkError::File { path: path.to_owned(), error };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(fail)?;
    Ok(Some(text))
}

pub(super) fn write_durably(path: &Path, text: &str, options: &mut OpenOptions) -> Result<(), LdkError> {
    let fail = |error| LdkError::File { path: path.to_owned(), error };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_private_folder(folder).map_err(fail)?;
    let mut file = options.write(true).mode(0o600).open(path).map_err(fail)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &tempfile::TempDir) -> Config {
        Config { seed_file: folder.path().join("deep/node.seed"), ..Config::default() }
    }

    #[test]
    fn a_seed_is_made_once_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        let made = Seed::find(&config).unwrap();
        assert_eq!(Seed::find(&config).unwrap().0, made.0);
        assert_eq!(std::fs::metadata(&config.seed_file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_seed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { seed: Some(crate::secret::Secret::new("abc")), ..config(&folder) };
        assert!(matches!(Seed::find(&config), Err(LdkError::Misconfigured(_))));
        assert!(!config.seed_file.exists());
    }

    #[test]
    fn a_database_that_was_copied_back_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = Generation::beside(&config(&folder));
        file.check(0).unwrap();
        file.check(1).unwrap();
        file.write(7).unwrap();
        file.check(7).unwrap();
        file.check(8).unwrap();
        file.check(12).unwrap();
        let error = file.check(6).unwrap_err();
        assert!(error.to_string().contains("backup"), "{error}");
    }
}
