//! The directory into which operators put components, with the settings of the configuration.

use crate::limits::COMPONENT_BYTES;
use crate::set::{Source, Sources};
use paygress_core::backend::policy::Slot;
use paygress_oci::{MAX_SIGNATURE_BYTES, Unverified, VerificationPolicy};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A component's file, or its signature's, cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} cannot be read: {source}", .path.display())]
pub struct ReadError {
    pub path: PathBuf,
    pub source: Arc<io::Error>,
}

/// Why the directory has no usable component for a slot.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// A file cannot be read.
    #[error(
        "the policy {0}; set POLICY_DIR, or build the default policies with `cargo xtask plugins`"
    )]
    Read(#[from] ReadError),
    /// It is not signed as the operator requires.
    #[error("the policy {} is rejected: {source}", .path.display())]
    Unverified { path: PathBuf, source: Unverified },
}

/// Whether `Policy` resources take precedence over the files of the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Precedence {
    #[default]
    Files,
    Resources,
}

/// A directory with four files, `images.wasm` and so on, each perhaps with its signature beside it,
/// `images.wasm.sig`.
#[derive(Clone, Debug)]
pub struct PolicyDir {
    path: PathBuf,
    settings: BTreeMap<Slot, String>,
    verification: VerificationPolicy,
    precedence: Precedence,
}

/// Metadata of a file. Changing the file or its permissions changes this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileState {
    Present { inode: u64, bytes: u64, modified: (i64, i64), changed: (i64, i64) },
    Unreadable(io::ErrorKind),
}

impl PolicyDir {
    /// A directory, with the settings of its components; a slot without settings has `{}`.
    #[must_use]
    pub fn new(path: PathBuf, settings: BTreeMap<Slot, String>) -> Self {
        Self {
            path,
            settings,
            verification: VerificationPolicy::default(),
            precedence: Precedence::default(),
        }
    }

    /// Leaves a slot that a `Policy` resource has set to that resource.
    #[must_use]
    pub fn defer_to_resources(self) -> Self {
        Self { precedence: Precedence::Resources, ..self }
    }

    pub(crate) fn defers_to_resources(&self) -> bool {
        self.precedence == Precedence::Resources
    }

    /// Requires signatures as this policy says.
    #[must_use]
    pub fn with_verification(self, verification: VerificationPolicy) -> Self {
        Self { verification, ..self }
    }

    fn file(&self, slot: Slot) -> PathBuf {
        self.path.join(format!("{slot}.wasm"))
    }

    /// The state of its files and their signatures.
    pub(crate) fn file_states(&self) -> Vec<FileState> {
        let files = Slot::ALL.map(|slot| self.file(slot));
        let signatures = files.each_ref().map(|file| signature_path(file));
        let state = |file: &PathBuf| match std::fs::metadata(file) {
            Ok(file) => FileState::Present {
                inode: file.ino(),
                bytes: file.len(),
                modified: (file.mtime(), file.mtime_nsec()),
                changed: (file.ctime(), file.ctime_nsec()),
            },
            Err(error) => FileState::Unreadable(error.kind()),
        };
        files.iter().chain(&signatures).map(state).collect()
    }

    /// Reads the components for all slots. Blocks.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn sources(&self) -> Result<Sources, SourceError> {
        Slot::ALL.into_iter().map(|slot| Ok((slot, self.source(slot)?))).collect()
    }

    pub(crate) fn source(&self, slot: Slot) -> Result<Source, SourceError> {
        let settings = self.settings.get(&slot).cloned().unwrap_or_else(|| "{}".to_owned());
        let path = self.file(slot);
        let component = read_component(&path)?;
        let signature = read_signature(&path)?;
        match self.verification.verify_blob(
            &path.display().to_string(),
            &component,
            signature.as_deref(),
        ) {
            Ok(()) => Ok(Source { component, settings }),
            Err(source) => Err(SourceError::Unverified { path, source }),
        }
    }
}

/// The path of a component's signature: `pricing.wasm.sig`.
#[must_use]
pub fn signature_path(component: &Path) -> PathBuf {
    let mut name = component.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Reads the signature beside a component's file; `None` if there is none.
///
/// # Errors
/// [`ReadError`].
pub fn read_signature(component: &Path) -> Result<Option<String>, ReadError> {
    let path = signature_path(component);
    // One byte more, so that one that is too long is noticed.
    let limit = u64::try_from(MAX_SIGNATURE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = String::new();
    match File::open(&path).and_then(|file| file.take(limit).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ReadError { path, source: Arc::new(error) }),
    }
}

/// Reads a component's file, up to one byte more than a component may have.
///
/// # Errors
/// [`ReadError`].
pub fn read_component(path: &Path) -> Result<Vec<u8>, ReadError> {
    let limit = u64::try_from(COMPONENT_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut component = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut component))
        .map_err(|error| ReadError { path: path.to_owned(), source: Arc::new(error) })?;
    Ok(component)
}
