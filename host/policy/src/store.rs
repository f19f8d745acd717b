//! What has been in force, on disk: a line a publication, and every component that one of them
//! names.
//!
//! ```text
//! POLICY_STATE_DIR/lock            held by the process that serves
//!                  history.jsonl   one Publication a line, the last one in force
//!                  DIGEST.wasm     a component
//! ```

use crate::files::{private_directory, remove_partial, write_privately};
use crate::set::{Source, Sources};
use paygress_core::backend::policy::Slot;
use paygress_core::model::units::UnixTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Publications that are kept: months of daily changes…
const KEPT: usize = 1_000;
/// …and the bytes of settings in them.
const KEPT_SETTINGS_BYTES: usize = 16 << 20;
/// Bytes of components that are kept besides those in force and those before: the store stands
/// beside the money, and must not fill its disk.
const KEPT_BYTES: u64 = 256 << 20;

/// What is in a slot, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRef {
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// A JSON object.
    pub settings: String,
}

impl ComponentRef {
    /// The name of this.
    #[must_use]
    pub fn of(source: &Source) -> Self {
        Self {
            digest: hex::encode(Sha256::digest(&source.component)),
            settings: source.settings.clone(),
        }
    }
}

/// Fillings of some slots, or of all.
pub type ComponentRefs = BTreeMap<Slot, ComponentRef>;

/// What these sources fill.
#[must_use]
pub fn fillings(sources: &Sources) -> ComponentRefs {
    sources.iter().map(|(slot, source)| (*slot, ComponentRef::of(source))).collect()
}

/// Who published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The process, when it started: what the folder and the config file held.
    Start,
    /// A changed file in the folder.
    PolicyDir,
    /// The operator.
    Operator,
    /// The operator, who was content with a shadow.
    Promotion,
    /// A custom resource.
    Resource,
    /// The operator, who went back to this publication.
    Rollback(u64),
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::PolicyDir => f.write_str("folder"),
            Self::Operator => f.write_str("operator"),
            Self::Promotion => f.write_str("promotion"),
            Self::Resource => f.write_str("resource"),
            Self::Rollback(to) => write!(f, "rollback to {to}"),
        }
    }
}

/// One exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number: 1, 2, 3…
    pub number: u64,
    /// When.
    pub at: UnixTime,
    /// By whom.
    pub by: Trigger,
    /// The slots that it changed, or took over.
    pub slots: Vec<Slot>,
    /// The slots that it gave to resources, each with that resource's version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub wishes: BTreeMap<Slot, String>,
    /// What was in force from then on.
    pub set: ComponentRefs,
    /// What the folder and the config file held when they were last accepted: only what differs
    /// from it is news.
    pub folder: ComponentRefs,
}

impl Revision {
    /// The one after these, of now, which changes nothing yet.
    pub(crate) fn next(publications: &[Self]) -> Self {
        let number = publications.last().map_or(0, |last| last.number).saturating_add(1);
        let (slots, wishes, set, folder) = Default::default();
        Self { number, at: UnixTime::now(), by: Trigger::Start, slots, wishes, set, folder }
    }
}

/// Why the store cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The directory.
    #[error("POLICY_STATE_DIR {path} cannot be used: {why}")]
    Directory {
        /// It.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Another process serves from it.
    #[error("POLICY_STATE_DIR {0} is another process's; give each its own")]
    Locked(PathBuf),
    /// What stands there is not what was written.
    #[error(
        "{path}, line {line}, cannot be read: {why}; move the directory away to begin anew from POLICY_DIR"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// Why.
        why: String,
    },
}

/// The directory.
pub(crate) struct Store {
    directory: PathBuf,
    history: File,
    /// Lines of the history that are of no use any longer.
    surplus: usize,
    _lock: File,
}

/// How many of the oldest publications are too many.
fn surplus(publications: &[Revision]) -> usize {
    let bytes = |publication: &Revision| {
        let fillings = publication.set.values().chain(publication.folder.values());
        fillings.fold(0_usize, |sum, filling| sum.saturating_add(filling.settings.len()))
    };
    let mut sum = 0_usize;
    let fits = |publication: &&Revision| {
        sum = sum.saturating_add(bytes(publication));
        sum <= KEPT_SETTINGS_BYTES
    };
    // The last two in any case: what is in force, and the way back.
    let kept = publications.iter().rev().take(KEPT).take_while(fits).count().max(2);
    publications.len().saturating_sub(kept)
}

/// A history of these, without a line that was never finished, and what is too old.
fn write_history(directory: &Path, publications: &[Revision]) -> std::io::Result<File> {
    let mut lines = String::new();
    for publication in publications {
        lines.push_str(&serde_json::to_string(publication)?);
        lines.push('\n');
    }
    let path = history_in(directory);
    write_privately(&path, &[lines.as_bytes()])?;
    open(&path)
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

fn history_in(directory: &Path) -> PathBuf {
    directory.join("history.jsonl")
}

/// What has been published from this directory, for who only looks: the service may be running.
///
/// # Errors
/// [`StoreError`].
pub fn history(directory: &Path) -> Result<Vec<Revision>, StoreError> {
    let path = history_in(directory);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(StoreError::Directory {
                path: directory.to_owned(),
                why: error.to_string(),
            });
        }
        Ok(text) => text,
    };
    // A last line without an end was being written when the power went: it was not in force.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let line = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| StoreError::Damaged {
            path: path.clone(),
            line: index.saturating_add(1),
            why: error.to_string(),
        })
    };
    whole.lines().enumerate().map(line).collect()
}

/// The component of this digest that is kept in this directory.
///
/// # Errors
/// In words.
fn component(directory: &Path, digest: &str) -> Result<Vec<u8>, String> {
    let path = directory.join(format!("{digest}.wasm"));
    let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("the component {digest} is not kept any longer; swap it in from its file")
        }
        _ => format!("{}: {error}", path.display()),
    })?;
    match hex::encode(Sha256::digest(&bytes)) == digest {
        true => Ok(bytes),
        false => Err(format!("{} is not what was kept there", path.display())),
    }
}

/// A filling with its component, as this directory keeps it.
///
/// # Errors
/// In words.
pub(crate) fn source(directory: &Path, filling: &ComponentRef) -> Result<Source, String> {
    Ok(Source {
        component: component(directory, &filling.digest)?,
        settings: filling.settings.clone(),
    })
}

impl Store {
    /// Opens the directory for the one process that serves from it.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Vec<Revision>), StoreError> {
        let unusable = |why: String| StoreError::Directory { path: directory.to_owned(), why };
        private_directory(directory).map_err(unusable)?;
        let lock = open(&directory.join("lock")).map_err(|error| unusable(error.to_string()))?;
        lock.try_lock().map_err(|_| StoreError::Locked(directory.to_owned()))?;
        remove_partial(directory);
        let mut publications = history(directory)?;
        publications.drain(..surplus(&publications));
        let history =
            write_history(directory, &publications).map_err(|error| unusable(error.to_string()))?;
        Ok((
            Self { directory: directory.to_owned(), history, surplus: 0, _lock: lock },
            publications,
        ))
    }

    /// A filling with its component.
    pub(crate) fn source(&self, filling: &ComponentRef) -> Result<Source, String> {
        source(&self.directory, filling)
    }

    /// Keeps a component.
    pub(crate) fn keep(&self, source: &Source) -> Result<(), String> {
        let ComponentRef { digest, .. } = ComponentRef::of(source);
        if component(&self.directory, &digest).is_ok() {
            return Ok(());
        }
        let path = self.directory.join(format!("{digest}.wasm"));
        write_privately(&path, &[&source.component])
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Notes a publication, before it is in force.
    pub(crate) fn note(&mut self, publication: &Revision) -> Result<(), String> {
        let mut write = || {
            let before = self.history.seek(SeekFrom::End(0))?;
            let line = format!("{}\n", serde_json::to_string(publication)?);
            let written =
                self.history.write_all(line.as_bytes()).and_then(|()| self.history.sync_data());
            written.inspect_err(|_| {
                // What is half written must not stand before the next line.
                if let Err(error) = self.history.set_len(before) {
                    tracing::error!(%error, "the history of policies ends with half a line");
                }
            })
        };
        write().map_err(|error| format!("{}: {error}", history_in(&self.directory).display()))
    }

    /// Forgets publications that are too old, here and, when there are many, on disk.
    pub(crate) fn forget(&mut self, publications: &mut Vec<Revision>) {
        self.surplus =
            self.surplus.saturating_add(publications.drain(..surplus(publications)).count());
        if self.surplus < publications.len() {
            return;
        }
        match write_history(&self.directory, publications) {
            Ok(history) => (self.history, self.surplus) = (history, 0),
            Err(error) => {
                tracing::warn!(%error, "the history of policies could not be made shorter")
            }
        }
    }

    /// Removes components that no kept publication names, and the oldest where they are too large
    /// together. Names that are not a digest's are somebody else's.
    pub(crate) fn clean(&self, publications: &[Revision]) {
        let mut kept: BTreeSet<&str> = BTreeSet::new();
        let mut bytes = 0_u64;
        for (age, publication) in publications.iter().rev().enumerate() {
            for filling in publication.set.values() {
                let size =
                    std::fs::metadata(self.directory.join(format!("{}.wasm", filling.digest)))
                        .map_or(0, |metadata| metadata.len());
                if kept.contains(filling.digest.as_str()) {
                    continue;
                }
                bytes = bytes.saturating_add(size);
                if age < 2 || bytes <= KEPT_BYTES {
                    kept.insert(&filling.digest);
                }
            }
        }
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let ours = |digest: &&str| {
                digest.len() == 64
                    && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            };
            let digest = name.to_str().and_then(|name| name.strip_suffix(".wasm")).filter(ours);
            let Some(digest) = digest.filter(|digest| !kept.contains(digest)) else { continue };
            if let Err(error) = std::fs::remove_file(entry.path()) {
                tracing::warn!(%error, digest, "an old policy could not be removed");
            }
        }
    }
}

/// The publication whose set this one put in force: itself, or what it went back to.
fn resolved<'a>(
    publications: &'a [Revision],
    mut publication: &'a Revision,
) -> Option<&'a Revision> {
    while let Trigger::Rollback(to) = publication.by {
        publication =
            publications.iter().find(|earlier| earlier.number == to && to < publication.number)?;
    }
    Some(publication)
}

/// The publication to go back to: what was in force before what is. Going back again goes back
/// further; `None`: no further.
pub(crate) fn before(publications: &[Revision]) -> Option<&Revision> {
    let in_force = resolved(publications, publications.last()?)?;
    let mut at = in_force;
    while at.set == in_force.set {
        at = resolved(
            publications,
            publications.iter().rev().find(|earlier| earlier.number < at.number)?,
        )?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(number: u64, by: Trigger, digest: &str) -> Revision {
        let filling = ComponentRef { digest: digest.to_owned(), settings: "{}".to_owned() };
        Revision {
            number,
            at: UnixTime(number),
            by,
            slots: vec![],
            wishes: BTreeMap::new(),
            set: BTreeMap::from([(Slot::Pricing, filling)]),
            folder: ComponentRefs::new(),
        }
    }

    #[test]
    fn going_back_twice_goes_back_further_and_never_forward() {
        let mut all = vec![
            publication(1, Trigger::Start, "a"),
            publication(2, Trigger::PolicyDir, "b"),
            publication(3, Trigger::Operator, "c"),
        ];
        assert_eq!(before(&all).unwrap().number, 2);
        all.push(publication(4, Trigger::Rollback(2), "b"));
        assert_eq!(before(&all).unwrap().number, 1);
        all.push(publication(5, Trigger::Rollback(1), "a"));
        assert_eq!(before(&all), None);
        all.push(publication(6, Trigger::Operator, "d"));
        assert_eq!(before(&all).unwrap().number, 1, "not to what was gone back from");
    }

    #[test]
    fn half_a_line_is_dropped_and_a_damaged_one_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (mut store, empty) = Store::open(&path).unwrap();
        assert!(empty.is_empty());
        store.note(&publication(1, Trigger::Start, "a")).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Locked(_))));
        drop(store);
        let mut file = OpenOptions::new().append(true).open(path.join("history.jsonl")).unwrap();
        file.write_all(br#"{"number":2"#).unwrap();
        let (mut store, one) = Store::open(&path).unwrap();
        assert_eq!(one, [publication(1, Trigger::Start, "a")]);
        store.note(&publication(2, Trigger::Operator, "b")).unwrap();
        drop(store);
        assert_eq!(history(&path).unwrap().len(), 2);
        std::fs::write(path.join("history.jsonl"), "{}\n").unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Damaged { line: 1, .. })));
    }

    #[test]
    fn the_history_is_bounded_in_memory_and_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (mut store, mut kept) = Store::open(&path).unwrap();
        let lines = || std::fs::read_to_string(path.join("history.jsonl")).unwrap().lines().count();
        let mut add = |number: u64, settings: &str| {
            let mut publication = publication(number, Trigger::Operator, "a");
            settings.clone_into(&mut publication.set.get_mut(&Slot::Pricing).unwrap().settings);
            store.note(&publication).unwrap();
            kept.push(publication);
            store.forget(&mut kept);
            kept.len()
        };
        let large = "x".repeat(1 << 20);
        for number in 1..=50 {
            assert!(add(number, &large) <= 16);
            assert!(lines() < 2 * 16, "{}", lines());
        }
        assert_eq!(add(51, &"x".repeat(17 << 20)), 2, "the way back is kept");
        drop(store);
        std::fs::write(path.join("history.1.part"), "half").unwrap();
        let (_, again) = Store::open(&path).unwrap();
        assert_eq!((again.len(), again.last().unwrap().number), (2, 51));
        assert!(!path.join("history.1.part").exists());
    }

    #[test]
    fn cleaning_touches_only_components_that_nobody_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (store, _) = Store::open(&path).unwrap();
        let source = |bytes: &[u8]| Source { component: bytes.to_vec(), settings: "{}".to_owned() };
        store.keep(&source(b"one")).unwrap();
        store.keep(&source(b"two")).unwrap();
        std::fs::write(path.join("mine.wasm"), "mine").unwrap();
        let one = ComponentRef::of(&source(b"one"));
        store.clean(&[publication(1, Trigger::Start, &one.digest)]);
        assert_eq!(store.source(&one).unwrap(), source(b"one"));
        assert!(
            store.source(&ComponentRef::of(&source(b"two"))).is_err()
                && path.join("mine.wasm").exists()
        );
        // What was damaged is kept anew.
        std::fs::write(path.join(format!("{}.wasm", one.digest)), "damaged").unwrap();
        assert!(store.source(&one).is_err());
        store.keep(&source(b"one")).unwrap();
        assert_eq!(store.source(&one).unwrap(), source(b"one"));
    }
}
