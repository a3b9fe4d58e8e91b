//! The last good state of a wallet's folder, and how it is replaced in one step.
//!
//! rgb-lib rewrites its files where they are, so a kill in the middle of a call cuts them short. It therefore works on a folder that
//! may be lost at any time. What a call has done is copied from there to objects, which are never written again, and a manifest that
//! names them takes the place of the one before by a rename. What the library leaves half-done is thrown away, and the folder is made
//! anew from the objects. See docs/adr/0025-the-engine-works-on-a-copy.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::misconfigured;
use crate::ports::PortError;

/// Beside the folder that the library works on, which is where it has always been.
const FOLDER: &str = "kept";
const MANIFEST: &str = "manifest";
const DRAFT: &str = "manifest.new";
/// While this is there, somebody has the folder open, or has died over it.
const OPEN: &str = "open";
const FORMAT: &str = "sluice-kept 1";
/// Neither is part of the state: the library's log, and the lock that it leaves behind when it dies.
const LEFT_OUT: [&str; 2] = ["log", super::wallet::STALE_LOCK];
const CHUNK: usize = 64 * 1024;

/// When a file was written last, by the clock of its file system: seconds and nanoseconds.
type Stamp = (i64, i64);

fn stamp(of: &Metadata) -> Stamp {
    (of.mtime(), of.mtime_nsec())
}

/// A file of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    object: u64,
    bytes: u64,
    /// What the file in the work folder says while it is the same. Empty where a later write could leave the same stamp.
    stamp: Option<Stamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Manifest {
    files: BTreeMap<String, Held>,
    folders: BTreeSet<String>,
}

pub(super) struct Kept {
    folder: PathBuf,
    work: PathBuf,
    /// Empty before anything was kept.
    manifest: Option<Manifest>,
    next: u64,
}

impl Kept {
    /// What is kept for a work folder, which is made good if a process died over it.
    pub(super) fn ready(work: PathBuf) -> Result<Self, PortError> {
        let place = work.parent().ok_or_else(|| misconfigured("a wallet's folder has no place"))?;
        let folder = place.join(FOLDER);
        Self { folder, work, manifest: None, next: 1 }.made_ready().map_err(misconfigured)
    }

    fn made_ready(mut self) -> io::Result<Self> {
        fs::create_dir_all(&self.folder)?;
        self.manifest = read(&self.folder.join(MANIFEST))?;
        self.forget_the_rest()?;
        let was_open = self.folder.join(OPEN).exists();
        match &self.manifest {
            Some(_) if was_open || !self.work.exists() => {
                tracing::warn!(folder = %self.work.display(), "a wallet's assets are put back to the last good state");
                self.put_back()?;
            }
            // Closed in good order; but a release that keeps nothing may have worked on it since.
            Some(_) => self.keep().map(drop)?,
            // A new wallet that nobody was told of.
            None if was_open => remove(&self.work)?,
            None if self.work.exists() => self.keep().map(drop)?,
            None => {}
        }
        let mark = File::create(self.folder.join(OPEN))?;
        mark.sync_all()?;
        sync_folder(&self.folder)?;
        Ok(self)
    }

    /// Keeps what is there now; answers whether anything has changed.
    pub(super) fn take(&mut self) -> Result<bool, PortError> {
        self.keep().map_err(misconfigured)
    }

    /// Whether the work folder differs from what is kept.
    pub(super) fn differs(&mut self) -> Result<bool, PortError> {
        let draft = File::create(self.folder.join(DRAFT)).map_err(misconfigured)?;
        let since = stamp(&draft.metadata().map_err(misconfigured)?);
        Ok(!self.compare(since).map_err(misconfigured)?.changed.is_empty())
    }

    /// Whoever comes next may trust the folder.
    pub(super) fn close(self) {
        if let Err(error) = fs::remove_file(self.folder.join(OPEN)) {
            tracing::warn!(%error, "a wallet's folder counts as open; it is made anew by the next call");
        }
    }

    /// A copy of what is kept, in a folder that nobody else uses.
    pub(super) fn copy_to(&self, target: &Path) -> Result<(), PortError> {
        self.write_to(target).map_err(misconfigured)
    }

    fn keep(&mut self) -> io::Result<bool> {
        let mut draft = File::create(self.folder.join(DRAFT))?;
        let Compared { mut now, changed } = self.compare(stamp(&draft.metadata()?))?;
        if changed.is_empty() {
            self.manifest = Some(now);
            return Ok(false);
        }
        for path in changed {
            let Some(held) = now.files.get_mut(&path) else { continue };
            held.object = self.next;
            self.next = self.next.saturating_add(1);
            let object = self.object(held.object);
            held.bytes = fs::copy(self.work.join(&path), &object)?;
            File::open(&object)?.sync_all()?;
        }
        draft.write_all(written(&now).as_bytes())?;
        draft.sync_all()?;
        // The objects are there before a manifest that names them.
        sync_folder(&self.folder)?;
        fs::rename(self.folder.join(DRAFT), self.folder.join(MANIFEST))?;
        sync_folder(&self.folder)?;
        let before = self.manifest.replace(now);
        self.forget(before);
        Ok(true)
    }

    /// What the work folder holds. A stamp is trusted when it is older than this look: whatever is written later has a newer one.
    fn compare(&self, since: Stamp) -> io::Result<Compared> {
        let mut found = Manifest::default();
        walk(&self.work, "", &mut found)?;
        let known = self.manifest.as_ref();
        let mut changed = Vec::new();
        for (path, file) in &mut found.files {
            let trusted = file.stamp.filter(|stamp| *stamp < since);
            match known.and_then(|known| known.files.get(path)) {
                Some(held) if held.bytes == file.bytes => {
                    let is_same = held.stamp.is_some() && held.stamp == file.stamp;
                    if !is_same && !same_content(&self.work.join(path), &self.object(held.object))? {
                        changed.push(path.clone());
                    }
                    file.object = held.object;
                }
                Some(_) | None => changed.push(path.clone()),
            }
            file.stamp = trusted;
        }
        let is_gone = |known: &Manifest| {
            known.folders != found.folders || known.files.keys().any(|path| !found.files.contains_key(path))
        };
        if known.is_none_or(is_gone) {
            changed.push(String::new());
        }
        Ok(Compared { now: found, changed })
    }

    /// Makes the work folder anew.
    fn put_back(&self) -> io::Result<()> {
        remove(&self.work)?;
        self.write_to(&self.work)
    }

    fn write_to(&self, target: &Path) -> io::Result<()> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        fs::create_dir_all(target)?;
        for folder in &manifest.folders {
            fs::create_dir_all(target.join(folder))?;
        }
        for (path, held) in &manifest.files {
            let copied = fs::copy(self.object(held.object), target.join(path))?;
            if copied != held.bytes {
                return Err(io::Error::other(format!("{path}: {copied} bytes are kept of {}", held.bytes)));
            }
        }
        Ok(())
    }

    fn object(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    /// Objects of the manifest before, which no manifest names any more.
    fn forget(&self, before: Option<Manifest>) {
        let objects = |of: &Manifest| of.files.values().map(|held| held.object).collect::<BTreeSet<_>>();
        let used = self.manifest.as_ref().map(objects).unwrap_or_default();
        for object in before.as_ref().map(objects).unwrap_or_default().difference(&used) {
            if let Err(error) = fs::remove_file(self.object(*object)) {
                tracing::warn!(%error, object, "a file that is no longer kept stays until the wallet is opened again");
            }
        }
    }

    /// Objects that a process had begun to write when it died.
    fn forget_the_rest(&mut self) -> io::Result<()> {
        let files = self.manifest.iter().flat_map(|manifest| manifest.files.values());
        let used: BTreeSet<u64> = files.map(|held| held.object).collect();
        let mut highest = used.last().copied().unwrap_or(0);
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Some(object) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
            highest = highest.max(object);
            if !used.contains(&object) {
                fs::remove_file(entry.path())?;
            }
        }
        self.next = highest.saturating_add(1);
        Ok(())
    }
}

struct Compared {
    now: Manifest,
    /// Paths of files that are new or differ; an empty one where something is gone.
    changed: Vec<String>,
}

fn walk(root: &Path, within: &str, found: &mut Manifest) -> io::Result<()> {
    let at = if within.is_empty() { root.to_owned() } else { root.join(within) };
    for entry in fs::read_dir(at)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().filter(|name| !name.contains('\n'));
        let name = name.ok_or_else(|| io::Error::other("a file's name is no text"))?;
        if within.is_empty() && LEFT_OUT.contains(&name) {
            continue;
        }
        let path = if within.is_empty() { name.to_owned() } else { format!("{within}/{name}") };
        let about = entry.metadata()?;
        if about.is_dir() {
            walk(root, &path, found)?;
            found.folders.insert(path);
        } else {
            let held = Held { object: 0, bytes: about.len(), stamp: Some(stamp(&about)) };
            found.files.insert(path, held);
        }
    }
    Ok(())
}

fn same_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(other.read(&mut right)? == 0);
        }
        let Some((left, right)) = left.get(..read).zip(right.get_mut(..read)) else { return Ok(false) };
        match other.read_exact(right) {
            Ok(()) if left == right => {}
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

fn written(manifest: &Manifest) -> String {
    let mut text = format!("{FORMAT}\n");
    for folder in &manifest.folders {
        text.push_str(&format!("folder {folder}\n"));
    }
    for (path, held) in &manifest.files {
        let (seconds, nanos) = held.stamp.unwrap_or((0, 0));
        text.push_str(&format!("file {} {} {seconds} {nanos} {path}\n", held.object, held.bytes));
    }
    text.push_str("end\n");
    text
}

fn read(path: &Path) -> io::Result<Option<Manifest>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let broken = || io::Error::other(format!("{} can't be read", path.display()));
    let mut lines = text.lines();
    if lines.next() != Some(FORMAT) || lines.next_back() != Some("end") {
        return Err(broken());
    }
    let mut manifest = Manifest::default();
    for line in lines {
        match line.split_once(' ').ok_or_else(broken)? {
            ("folder", folder) => drop(manifest.folders.insert(folder.to_owned())),
            ("file", file) => {
                let (path, held) = read_file(file).ok_or_else(broken)?;
                manifest.files.insert(path, held);
            }
            _ => return Err(broken()),
        }
    }
    Ok(Some(manifest))
}

fn read_file(line: &str) -> Option<(String, Held)> {
    let mut words = line.splitn(5, ' ');
    let object = words.next()?.parse().ok()?;
    let bytes = words.next()?.parse().ok()?;
    let stamp: Stamp = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let stamp = Some(stamp).filter(|stamp| *stamp != (0, 0));
    Some((words.next()?.to_owned(), Held { object, bytes, stamp }))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn what_a_killed_call_has_left_is_thrown_away() {
        let place = tempfile::tempdir().unwrap();
        let work = place.path().join("f00d");
        let mut kept = Kept::ready(work.clone()).unwrap();
        fs::create_dir_all(work.join("rgb/empty")).unwrap();
        fs::write(work.join("rgb/stash.dat"), "all of it").unwrap();
        fs::write(work.join("index"), "1").unwrap();
        assert!(kept.take().unwrap());
        assert!(!kept.take().unwrap(), "nothing has changed since");
        // Cut short, with a file that is new and one that is gone; and nobody closes it.
        fs::write(work.join("rgb/stash.dat"), "all").unwrap();
        fs::write(work.join("rgb_lib_db-journal"), "half a page").unwrap();
        fs::write(work.join("log"), "is no part of it").unwrap();
        fs::remove_file(work.join("index")).unwrap();
        assert!(kept.differs().unwrap());
        drop(kept);
        let kept = Kept::ready(work.clone()).unwrap();
        assert_eq!((text(&work.join("rgb/stash.dat")), text(&work.join("index"))), ("all of it".into(), "1".into()));
        assert!(work.join("rgb/empty").is_dir() && !work.join("rgb_lib_db-journal").exists());
        kept.close();
    }

    #[test]
    fn what_another_release_has_done_with_a_closed_folder_is_taken_over() {
        let place = tempfile::tempdir().unwrap();
        let work = place.path().join("f00d");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("stash.dat"), "of a release before").unwrap();
        Kept::ready(work.clone()).unwrap().close();
        fs::write(work.join("stash.dat"), "of a release before, again").unwrap();
        Kept::ready(work.clone()).unwrap().close();
        fs::remove_dir_all(&work).unwrap();
        Kept::ready(work.clone()).unwrap().close();
        assert_eq!(text(&work.join("stash.dat")), "of a release before, again");
    }

    #[test]
    fn a_change_that_leaves_size_and_stamp_as_they_were_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let work = place.path().join("f00d");
        let mut kept = Kept::ready(work.clone()).unwrap();
        fs::create_dir_all(&work).unwrap();
        for round in 100..400 {
            fs::write(work.join("state.dat"), round.to_string()).unwrap();
            assert!(kept.take().unwrap(), "round {round}");
        }
        drop(kept);
        drop(Kept::ready(work.clone()).unwrap());
        assert_eq!(text(&work.join("state.dat")), "399");
    }

    #[test]
    fn a_kill_while_it_is_kept_leaves_the_state_before() {
        let place = tempfile::tempdir().unwrap();
        let work = place.path().join("f00d");
        let mut kept = Kept::ready(work.clone()).unwrap();
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("stash.dat"), "first").unwrap();
        kept.take().unwrap();
        let folder = place.path().join(FOLDER);
        // An object and half a manifest, which no rename has put in force.
        fs::write(folder.join("77"), "seco").unwrap();
        fs::write(folder.join(DRAFT), "sluice-kept 1\nfile 77").unwrap();
        fs::write(work.join("stash.dat"), "second").unwrap();
        drop(kept);
        let mut kept = Kept::ready(work.clone()).unwrap();
        assert_eq!(text(&work.join("stash.dat")), "first");
        assert!(!folder.join("77").exists());
        fs::write(work.join("stash.dat"), "third").unwrap();
        assert!(kept.take().unwrap());
        assert_eq!(read(&folder.join(MANIFEST)).unwrap(), kept.manifest);
    }
}
