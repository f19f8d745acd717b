//! The revisions and their components on disk: one line per revision, and every component that a
//! revision names.
//!
//! ```text
//! POLICY_STATE_DIR/lock            held by the process that serves
//!                  history.jsonl   one Revision per line, the last one active
//!                  DIGEST.wasm     a component
//! ```

use crate::files::{DirectoryError, private_directory, remove_partial, write_atomically};
use crate::revision::{ComponentRef, ComponentRefs, Revision};
use crate::set::{Source, Sources};
use paygress_core::FileLock;
use paygress_core::model::ids::HexDigest;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Revisions that are kept: months of daily changes…
const MAX_REVISIONS: usize = 1_000;
/// …and the bytes of settings in them.
const MAX_SETTINGS_BYTES: usize = 16 << 20;
/// Bytes of components that are kept besides the active ones and those before: the directory may
/// share a disk with the wallet, and must not fill it.
const MAX_COMPONENT_BYTES: u64 = 256 << 20;

/// Why the state directory cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be used.
    #[error("POLICY_STATE_DIR {} cannot be used: {source}", .path.display())]
    Directory { path: PathBuf, source: DirectoryError },
    /// Another process serves from it.
    #[error("POLICY_STATE_DIR {} is used by another process; give each process its own", .0.display())]
    Locked(PathBuf),
    /// A line of the history was changed or damaged.
    #[error(
        "{}, line {line}, cannot be read: {source}; move the directory away to start again from POLICY_DIR",
        .path.display()
    )]
    Damaged { path: PathBuf, line: usize, source: Arc<serde_json::Error> },
    /// A file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: Arc<io::Error> },
    /// A component was removed: it was too old.
    #[error("the component {0} is no longer stored; swap it in from its file")]
    ComponentMissing(HexDigest),
    /// A component's file was changed or damaged.
    #[error("{} is not what was stored there; swap the component in from its file", .0.display())]
    ComponentDamaged(PathBuf),
}

impl StoreError {
    fn file(path: PathBuf) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path, source: Arc::new(source) }
    }

    fn directory<E: Into<DirectoryError>>(path: &Path) -> impl Fn(E) -> Self {
        move |source| Self::Directory { path: path.to_owned(), source: source.into() }
    }
}

/// The state directory, locked by this process.
pub(crate) struct RevisionStore {
    directory: PathBuf,
    history: File,
    /// Lines of the history file whose revisions were forgotten.
    obsolete_lines: usize,
    _lock: FileLock,
}

/// How many of the oldest revisions exceed the limits.
fn excess(revisions: &[Revision]) -> usize {
    let bytes = |revision: &Revision| {
        let component_refs = revision.set.values().chain(revision.policy_dir.values());
        component_refs.fold(0_usize, |sum, component| sum.saturating_add(component.settings.len()))
    };
    let mut sum = 0_usize;
    let fits = |revision: &&Revision| {
        sum = sum.saturating_add(bytes(revision));
        sum <= MAX_SETTINGS_BYTES
    };
    // The last two in any case: the active one, and the one to go back to.
    let kept = revisions.iter().rev().take(MAX_REVISIONS).take_while(fits).count().max(2);
    revisions.len().saturating_sub(kept)
}

/// Rewrites the history: without old revisions, and without an unfinished last line.
fn write_history(directory: &Path, revisions: &[Revision]) -> io::Result<File> {
    let mut lines = String::new();
    for revision in revisions {
        lines.push_str(&serde_json::to_string(revision)?);
        lines.push('\n');
    }
    let path = history_path(directory);
    write_atomically(&path, &[lines.as_bytes()])?;
    open(&path)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

fn history_path(directory: &Path) -> PathBuf {
    directory.join("history.jsonl")
}

/// Reads the revisions of this directory, without locking it: the service may be running.
///
/// # Errors
/// [`StoreError`].
pub fn history(directory: &Path) -> Result<Vec<Revision>, StoreError> {
    let path = history_path(directory);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::directory(directory)(error)),
        Ok(text) => text,
    };
    // A last line without an end was being written when the power failed: it was not active.
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| StoreError::Damaged {
            path: path.clone(),
            line: index.saturating_add(1),
            source: Arc::new(error),
        })
    };
    complete.lines().enumerate().map(parse).collect()
}

fn component(directory: &Path, digest: &HexDigest) -> Result<Vec<u8>, StoreError> {
    let path = directory.join(format!("{digest}.wasm"));
    let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::ComponentMissing(digest.clone()),
        _ => StoreError::file(path.clone())(error),
    })?;
    match HexDigest::of(&bytes) == *digest {
        true => Ok(bytes),
        false => Err(StoreError::ComponentDamaged(path)),
    }
}

fn source(directory: &Path, component_ref: &ComponentRef) -> Result<Source, StoreError> {
    Ok(Source {
        component: component(directory, &component_ref.digest)?,
        settings: component_ref.settings.clone(),
    })
}

/// The stored components of these references.
pub(crate) fn sources(directory: &Path, refs: &ComponentRefs) -> Result<Sources, StoreError> {
    refs.iter().map(|(slot, component)| Ok((*slot, source(directory, component)?))).collect()
}

impl RevisionStore {
    /// Opens and locks the directory. Returns its revisions, too.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Vec<Revision>), StoreError> {
        private_directory(directory).map_err(StoreError::directory(directory))?;
        let lock = open(&directory.join("lock")).map_err(StoreError::directory(directory))?;
        let lock =
            FileLock::try_lock(lock).map_err(|_| StoreError::Locked(directory.to_owned()))?;
        remove_partial(directory);
        let mut revisions = history(directory)?;
        revisions.drain(..excess(&revisions));
        let history =
            write_history(directory, &revisions).map_err(StoreError::directory(directory))?;
        let store =
            Self { directory: directory.to_owned(), history, obsolete_lines: 0, _lock: lock };
        Ok((store, revisions))
    }

    pub(crate) fn source(&self, component_ref: &ComponentRef) -> Result<Source, StoreError> {
        source(&self.directory, component_ref)
    }

    /// Stores a component, unless it is stored already.
    pub(crate) fn store_component(&self, source: &Source) -> Result<(), StoreError> {
        let ComponentRef { digest, .. } = ComponentRef::of(source);
        if component(&self.directory, &digest).is_ok() {
            return Ok(());
        }
        let path = self.directory.join(format!("{digest}.wasm"));
        write_atomically(&path, &[&source.component]).map_err(StoreError::file(path))
    }

    /// Appends a revision, before it becomes active.
    pub(crate) fn append(&mut self, revision: &Revision) -> Result<(), StoreError> {
        let mut write = || {
            let before = self.history.seek(SeekFrom::End(0))?;
            let line = format!("{}\n", serde_json::to_string(revision)?);
            let written =
                self.history.write_all(line.as_bytes()).and_then(|()| self.history.sync_data());
            written.inspect_err(|_| {
                // The next line must not follow a partial one.
                if let Err(error) = self.history.set_len(before) {
                    tracing::error!(%error, "the policy history ends with a partial line");
                }
            })
        };
        write().map_err(StoreError::file(history_path(&self.directory)))
    }

    /// Forgets revisions that are too old: here and, when there are many, on disk.
    pub(crate) fn forget_old(&mut self, revisions: &mut Vec<Revision>) {
        self.obsolete_lines =
            self.obsolete_lines.saturating_add(revisions.drain(..excess(revisions)).count());
        if self.obsolete_lines < revisions.len() {
            return;
        }
        match write_history(&self.directory, revisions) {
            Ok(history) => (self.history, self.obsolete_lines) = (history, 0),
            Err(error) => {
                tracing::warn!(%error, "the policy history could not be shortened");
            }
        }
    }

    /// Removes components that no revision names, and the oldest if all together are too large.
    /// Leaves files alone whose names are not digests.
    pub(crate) fn remove_unreferenced(&self, revisions: &[Revision]) {
        let kept = self.referenced(revisions);
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| name.strip_suffix(".wasm"));
            let digest = digest.and_then(|digest| HexDigest::parse(digest).ok());
            let Some(digest) = digest.filter(|digest| !kept.contains(digest)) else { continue };
            if let Err(error) = std::fs::remove_file(entry.path()) {
                tracing::warn!(%error, %digest, "an old policy could not be removed");
            }
        }
    }

    fn referenced<'a>(&self, revisions: &'a [Revision]) -> BTreeSet<&'a HexDigest> {
        let mut kept: BTreeSet<&HexDigest> = BTreeSet::new();
        let mut bytes = 0_u64;
        for (age, revision) in revisions.iter().rev().enumerate() {
            for ComponentRef { digest, .. } in revision.set.values() {
                if kept.contains(digest) {
                    continue;
                }
                let size = std::fs::metadata(self.directory.join(format!("{digest}.wasm")))
                    .map_or(0, |metadata| metadata.len());
                bytes = bytes.saturating_add(size);
                if age < 2 || bytes <= MAX_COMPONENT_BYTES {
                    kept.insert(digest);
                }
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revision::Trigger;
    use crate::revision::tests::revision;
    use paygress_core::backend::policy::Slot;

    #[test]
    fn an_unfinished_line_is_dropped_and_a_damaged_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (mut store, empty) = RevisionStore::open(&path).unwrap();
        assert!(empty.is_empty());
        store.append(&revision(1, Trigger::Start, "a")).unwrap();
        assert!(matches!(RevisionStore::open(&path), Err(StoreError::Locked(_))));
        drop(store);
        let mut file = OpenOptions::new().append(true).open(path.join("history.jsonl")).unwrap();
        file.write_all(br#"{"number":2"#).unwrap();
        let (mut store, one) = RevisionStore::open(&path).unwrap();
        assert_eq!(one, [revision(1, Trigger::Start, "a")]);
        store.append(&revision(2, Trigger::Operator, "b")).unwrap();
        drop(store);
        assert_eq!(history(&path).unwrap().len(), 2);
        std::fs::write(path.join("history.jsonl"), "{}\n").unwrap();
        assert!(matches!(RevisionStore::open(&path), Err(StoreError::Damaged { line: 1, .. })));
    }

    #[test]
    fn the_history_is_bounded_in_memory_and_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (mut store, mut kept) = RevisionStore::open(&path).unwrap();
        let lines = || std::fs::read_to_string(path.join("history.jsonl")).unwrap().lines().count();
        let mut add = |number: u64, settings: &str| {
            let mut revision = revision(number, Trigger::Operator, "a");
            settings.clone_into(&mut revision.set.get_mut(&Slot::Pricing).unwrap().settings);
            store.append(&revision).unwrap();
            kept.push(revision);
            store.forget_old(&mut kept);
            kept.len()
        };
        let large = "x".repeat(1 << 20);
        for number in 1..=50 {
            assert!(add(number, &large) <= 16);
            assert!(lines() < 2 * 16, "{}", lines());
        }
        assert_eq!(add(51, &"x".repeat(17 << 20)), 2, "the revision to go back to is kept");
        drop(store);
        std::fs::write(path.join("history.1.part"), "half").unwrap();
        let (_, again) = RevisionStore::open(&path).unwrap();
        assert_eq!((again.len(), again.last().unwrap().number), (2, 51));
        assert!(!path.join("history.1.part").exists());
    }

    #[test]
    fn only_components_that_no_revision_names_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (store, _) = RevisionStore::open(&path).unwrap();
        let source = |bytes: &[u8]| Source { component: bytes.to_vec(), settings: "{}".to_owned() };
        store.store_component(&source(b"one")).unwrap();
        store.store_component(&source(b"two")).unwrap();
        std::fs::write(path.join("mine.wasm"), "mine").unwrap();
        let one = ComponentRef::of(&source(b"one"));
        store.remove_unreferenced(&[revision(1, Trigger::Start, "one")]);
        assert_eq!(store.source(&one).unwrap(), source(b"one"));
        assert!(
            store.source(&ComponentRef::of(&source(b"two"))).is_err()
                && path.join("mine.wasm").exists()
        );
        // A damaged component is stored again.
        std::fs::write(path.join(format!("{}.wasm", one.digest)), "damaged").unwrap();
        assert!(store.source(&one).is_err());
        store.store_component(&source(b"one")).unwrap();
        assert_eq!(store.source(&one).unwrap(), source(b"one"));
    }
}
