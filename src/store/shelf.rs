//! What strangers hand each other through this gateway: files in a folder of their own. Nothing of it is in the database, which is for
//! what is owed and owned. A file is written whole under its name or not at all; its name says when it came and how long it is, so a
//! start reads the folder and no file.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::hashes::{Hash as _, sha256};
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::consignments::{Acknowledged, Consignment, Label, Posted};
use crate::clock::Timestamp;
use crate::secret::{keep_private, make_private_folder};

const IN_USE: &str = "in-use";
const UNFINISHED: &str = "unfinished";
/// Files that are kept at most, however short they are: each takes a block of the disk.
const FILES_MAX: usize = 200_000;
/// The first line of a file is longer than any that was written is.
const HEAD_MAX: u64 = 8 * 1024;

/// The folder, and what is in it. Cheap to clone.
#[derive(Clone)]
pub struct Shelf {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    kept: Mutex<Kept>,
    /// Goes with the process, however that ends.
    _lock: File,
}

#[derive(Default)]
struct Kept {
    files: HashMap<Key, Entry>,
    by_age: BTreeSet<(i64, Key)>,
    bytes: u64,
}

/// What a file is, and the SHA-256 of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key(Kind, sha256::Hash);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Consignment,
    Medium,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    created_at: i64,
    size: u64,
    ack: Option<bool>,
}

/// The first line of a file.
#[derive(Serialize, Deserialize)]
struct Head {
    name: String,
    hash: String,
    txid: Option<String>,
    vout: Option<u32>,
}

/// A file that somebody brings.
pub struct Brought<'a> {
    pub hash: String,
    pub bytes: &'a [u8],
    pub at: Timestamp,
    /// How many bytes may be here when it is.
    pub most: u64,
}

impl Kind {
    const fn letter(self) -> &'static str {
        match self {
            Self::Consignment => "c",
            Self::Medium => "m",
        }
    }
}

impl Key {
    fn consignment(recipient: &str) -> Self {
        Self(Kind::Consignment, sha256::Hash::hash(recipient.as_bytes()))
    }

    fn medium(name: &str) -> Self {
        Self(Kind::Medium, sha256::Hash::hash(name.as_bytes()))
    }

    /// `c-<hash>-<milliseconds>-<bytes>-<word>`
    fn file_name(self, entry: Entry) -> String {
        let word = match entry.ack {
            None => "none",
            Some(true) => "yes",
            Some(false) => "no",
        };
        format!("{}-{}-{}-{}-{word}", self.0.letter(), self.1, entry.created_at, entry.size)
    }

    fn parse(file_name: &str) -> Option<(Self, Entry)> {
        let mut parts = file_name.split('-');
        let kind = match parts.next()? {
            "c" => Kind::Consignment,
            "m" => Kind::Medium,
            _ => return None,
        };
        let key = Self(kind, parts.next()?.parse().ok()?);
        let (created_at, size) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let ack = match parts.next()? {
            "none" => None,
            "yes" => Some(true),
            "no" => Some(false),
            _ => return None,
        };
        Some((key, Entry { created_at, size, ack }))
    }
}

impl Kept {
    fn add(&mut self, key: Key, entry: Entry) {
        if let Some(before) = self.remove(key) {
            tracing::warn!(?before, "a stranger's file was here twice");
        }
        self.bytes = self.bytes.saturating_add(entry.size);
        self.by_age.insert((entry.created_at, key));
        self.files.insert(key, entry);
    }

    fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.files.remove(&key)?;
        self.by_age.remove(&(entry.created_at, key));
        self.bytes = self.bytes.saturating_sub(entry.size);
        Some(entry)
    }
}

impl Shelf {
    /// Opens a folder, which is made where there is none, for this process alone.
    ///
    /// # Errors
    /// When it can't be used, or another process uses it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let cant =
            |error: io::Error| StoreError::Misconfigured(format!("proxy.data_dir {}: {error}", folder.display()));
        make_private_folder(folder).map_err(cant)?;
        keep_private(folder);
        let lock = File::options().create(true).truncate(false).write(true).open(folder.join(IN_USE)).map_err(cant)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(folder.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(cant(error)),
        }
        let mut kept = Kept::default();
        for entry in fs::read_dir(folder).map_err(cant)? {
            let name = entry.map_err(cant)?.file_name();
            if name == UNFINISHED {
                fs::remove_file(folder.join(UNFINISHED)).map_err(cant)?;
            } else if let Some((key, entry)) = name.to_str().and_then(Key::parse) {
                kept.add(key, entry);
            }
        }
        Ok(Self { inner: Arc::new(Inner { folder: folder.to_owned(), kept: Mutex::new(kept), _lock: lock }) })
    }

    /// How many bytes are here.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.kept().bytes
    }

    /// Stores a consignment, unless there is one.
    ///
    /// # Errors
    /// When the disk can't do it.
    pub fn post(&self, label: &Label, file: &Brought<'_>) -> Result<Posted, StoreError> {
        let (name, txid) = (label.recipient_id.clone(), Some(label.txid.clone()));
        self.store(Key::consignment(&name), &Head { name, hash: file.hash.clone(), txid, vout: label.vout }, file)
    }

    /// Stores a medium, unless there is one of this name.
    ///
    /// # Errors
    /// When the disk can't do it.
    pub fn post_media(&self, name: &str, file: &Brought<'_>) -> Result<Posted, StoreError> {
        let head = Head { name: name.to_owned(), hash: file.hash.clone(), txid: None, vout: None };
        self.store(Key::medium(name), &head, file)
    }

    /// What is there for a recipient, without the file.
    ///
    /// # Errors
    /// When the disk can't answer.
    pub fn find(&self, recipient: &str) -> Result<Option<Consignment>, StoreError> {
        let key = Key::consignment(recipient);
        let kept = self.kept();
        let Some(entry) = kept.files.get(&key).copied() else { return Ok(None) };
        let (head, _rest) = self.read(key, entry)?;
        drop(kept);
        Ok(Some(Consignment {
            txid: head.txid.unwrap_or_default(),
            vout: head.vout,
            hash: head.hash,
            size: entry.size,
            ack: entry.ack,
            is_own: false,
            is_dropped: false,
        }))
    }

    /// The file of a consignment.
    ///
    /// # Errors
    /// When the disk can't answer.
    pub fn content(&self, recipient: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.bytes(Key::consignment(recipient))
    }

    /// How long a medium is.
    #[must_use]
    pub fn media_size(&self, name: &str) -> Option<u64> {
        self.kept().files.get(&Key::medium(name)).map(|entry| entry.size)
    }

    /// A medium.
    ///
    /// # Errors
    /// When the disk can't answer.
    pub fn media(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.bytes(Key::medium(name))
    }

    /// Keeps what a recipient says to a consignment, once and for all.
    ///
    /// # Errors
    /// When the disk can't do it.
    pub fn acknowledge(&self, recipient: &str, ack: bool) -> Result<Acknowledged, StoreError> {
        let key = Key::consignment(recipient);
        let mut kept = self.kept();
        let Some(entry) = kept.files.get(&key).copied() else { return Ok(Acknowledged::NoConsignment) };
        if let Some(before) = entry.ack {
            return Ok(if before == ack { Acknowledged::Same } else { Acknowledged::Differs });
        }
        let said = Entry { ack: Some(ack), ..entry };
        fs::rename(self.path(key, entry), self.path(key, said)).map_err(|error| self.failed(&error))?;
        self.settle()?;
        kept.files.insert(key, said);
        Ok(Acknowledged::Set)
    }

    /// Forgets the oldest that came before this time, so many at most. Answers how many there were.
    ///
    /// # Errors
    /// When the disk can't do it.
    pub fn forget_before(&self, before: Timestamp, most: usize) -> Result<usize, StoreError> {
        let mut kept = self.kept();
        let old: Vec<Key> = kept
            .by_age
            .iter()
            .take_while(|(created_at, _)| *created_at < before.millis())
            .take(most)
            .map(|(_, key)| *key)
            .collect();
        for key in &old {
            let Some(entry) = kept.files.get(key).copied() else { continue };
            match fs::remove_file(self.path(*key, entry)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.failed(&error)),
                Ok(()) | Err(_) => {}
            }
            kept.remove(*key);
        }
        Ok(old.len())
    }

    fn store(&self, key: Key, head: &Head, file: &Brought<'_>) -> Result<Posted, StoreError> {
        let mut kept = self.kept();
        if let Some(entry) = kept.files.get(&key).copied() {
            let (there, _rest) = self.read(key, entry)?;
            let is_same = there.hash == head.hash && there.txid == head.txid && there.vout == head.vout;
            return Ok(if is_same { Posted::Same } else { Posted::Differs });
        }
        let size = file.bytes.len() as u64;
        if kept.bytes.saturating_add(size) > file.most || kept.files.len() >= FILES_MAX {
            return Ok(Posted::Full);
        }
        let entry = Entry { created_at: file.at.millis(), size, ack: None };
        self.write(head, file.bytes, &self.path(key, entry))?;
        kept.add(key, entry);
        Ok(Posted::Stored)
    }

    fn write(&self, head: &Head, bytes: &[u8], to: &Path) -> Result<(), StoreError> {
        let unfinished = self.inner.folder.join(UNFINISHED);
        let mut first = serde_json::to_vec(head)
            .map_err(|error| StoreError::Corrupt(format!("a consignment can't be written: {error}")))?;
        first.push(b'\n');
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(&first)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, to)
        });
        written.map_err(|error| self.failed(&error))?;
        self.settle()
    }

    /// Names are on the disk, too.
    fn settle(&self) -> Result<(), StoreError> {
        let folder = File::open(&self.inner.folder).and_then(|folder| folder.sync_all());
        folder.map_err(|error| self.failed(&error))
    }

    /// The head of a file, and a reader of the rest. Its name changes when it is acknowledged, so this is for who holds the lock.
    fn read(&self, key: Key, entry: Entry) -> Result<(Head, BufReader<File>), StoreError> {
        let file = File::open(self.path(key, entry)).map_err(|error| self.failed(&error))?;
        let (mut reader, mut first) = (BufReader::new(file), Vec::new());
        let read = reader.by_ref().take(HEAD_MAX).read_until(b'\n', &mut first);
        read.map_err(|error| self.failed(&error))?;
        let head = serde_json::from_slice(&first)
            .map_err(|error| StoreError::Corrupt(format!("a stranger's file has no head: {error}")))?;
        Ok((head, reader))
    }

    fn bytes(&self, key: Key) -> Result<Option<Vec<u8>>, StoreError> {
        let kept = self.kept();
        let Some(entry) = kept.files.get(&key).copied() else { return Ok(None) };
        let (_head, mut rest) = self.read(key, entry)?;
        // What is open stays readable, whatever becomes of its name.
        drop(kept);
        let mut bytes = Vec::new();
        rest.read_to_end(&mut bytes).map_err(|error| self.failed(&error))?;
        Ok(Some(bytes))
    }

    fn path(&self, key: Key, entry: Entry) -> PathBuf {
        self.inner.folder.join(key.file_name(entry))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        StoreError::Unavailable(format!("{}: {error}", self.inner.folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(recipient: &str) -> Label {
        Label { recipient_id: recipient.to_owned(), txid: "ab".repeat(32), vout: Some(1) }
    }

    fn brought(bytes: &[u8], at: i64) -> Brought<'_> {
        Brought { hash: sha256::Hash::hash(bytes).to_string(), bytes, at: Timestamp::from_millis(at), most: 100 }
    }

    #[test]
    fn what_is_stored_is_there_after_a_restart_and_what_was_not_finished_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(folder.path()).unwrap();
        assert!(matches!(Shelf::open(folder.path()), Err(StoreError::Locked(_))));
        let bytes = b"\0a line\nand another\n";
        assert_eq!(shelf.post(&label("../r"), &brought(bytes, 5)).unwrap(), Posted::Stored);
        assert_eq!(shelf.post_media("m", &brought(b"", 6)).unwrap(), Posted::Stored);
        assert_eq!(shelf.acknowledge("../r", false).unwrap(), Acknowledged::Set);
        drop(shelf);
        fs::write(folder.path().join(UNFINISHED), "half a fi").unwrap();
        fs::write(folder.path().join("somebody's notes"), "x").unwrap();
        let shelf = Shelf::open(folder.path()).unwrap();
        assert!(!folder.path().join(UNFINISHED).exists() && folder.path().join("somebody's notes").exists());
        let found = shelf.find("../r").unwrap().unwrap();
        assert_eq!((found.txid, found.vout, found.size), ("ab".repeat(32), Some(1), bytes.len() as u64));
        assert_eq!((found.ack, found.is_own), (Some(false), false));
        assert_eq!(shelf.content("../r").unwrap().as_deref(), Some(&bytes[..]));
        assert_eq!((shelf.media_size("m"), shelf.media("m").unwrap()), (Some(0), Some(Vec::new())));
        assert_eq!(shelf.used(), bytes.len() as u64);
        assert_eq!(shelf.acknowledge("../r", true).unwrap(), Acknowledged::Differs);
        assert_eq!(shelf.post(&label("../r"), &brought(bytes, 7)).unwrap(), Posted::Same);
        assert_eq!(shelf.post(&label("../r"), &brought(b"other", 7)).unwrap(), Posted::Differs);
    }

    #[test]
    fn no_more_is_kept_than_may_be_and_the_oldest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(folder.path()).unwrap();
        for (at, name) in [(1, "a"), (2, "b"), (3, "c")] {
            assert_eq!(shelf.post_media(name, &brought(&[7; 33], at)).unwrap(), Posted::Stored);
        }
        assert_eq!(shelf.post_media("d", &brought(b"x2", 4)).unwrap(), Posted::Full);
        assert_eq!(shelf.post(&label("d"), &brought(b"x", 4)).unwrap(), Posted::Stored);
        assert_eq!(shelf.forget_before(Timestamp::from_millis(3), 1).unwrap(), 1);
        assert_eq!((shelf.media_size("a"), shelf.media_size("b")), (None, Some(33)));
        assert_eq!(shelf.forget_before(Timestamp::from_millis(3), 9).unwrap(), 1);
        assert_eq!(shelf.forget_before(Timestamp::from_millis(3), 9).unwrap(), 0);
        assert_eq!(shelf.used(), 34);
    }
}
