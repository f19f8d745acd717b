//! The folder of components that operators put files into, with the settings of the config file.

use crate::engine::COMPONENT_BYTES;
use crate::set::{Source, Sources};
use paygress_core::backend::policy::Slot;
use paygress_oci::VerificationPolicy;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Four files, `images.wasm` and so on; beside each perhaps its signature, `images.wasm.sig`.
#[derive(Clone, Debug)]
pub struct PolicyDir {
    path: PathBuf,
    settings: BTreeMap<Slot, String>,
    trust: VerificationPolicy,
    yields: bool,
}

/// How a file looks from outside: who changes the file, or its rights, changes this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    File { inode: u64, bytes: u64, modified: (i64, i64), changed: (i64, i64) },
    Unseen(String),
}

impl PolicyDir {
    /// A folder, with the settings of its components; a slot that has none has `{}`.
    #[must_use]
    pub fn new(path: PathBuf, settings: BTreeMap<Slot, String>) -> Self {
        Self { path, settings, trust: VerificationPolicy::default(), yields: false }
    }

    /// The same, for a service that heeds resources: a slot that one of them has filled is left to
    /// it.
    #[must_use]
    pub fn defer_to_resources(self, yields: bool) -> Self {
        Self { yields, ..self }
    }

    pub(crate) fn yields(&self) -> bool {
        self.yields
    }

    /// The same, with an eye on whose the components are.
    #[must_use]
    pub fn trusting(self, trust: VerificationPolicy) -> Self {
        Self { trust, ..self }
    }

    fn file(&self, slot: Slot) -> PathBuf {
        self.path.join(format!("{slot}.wasm"))
    }

    /// How its files look.
    pub(crate) fn look(&self) -> Vec<Look> {
        let files = Slot::ALL.map(|slot| self.file(slot));
        let signatures = files.each_ref().map(|file| signature_path(file));
        let look = |file: &PathBuf| match std::fs::metadata(file) {
            Ok(file) => Look::File {
                inode: file.ino(),
                bytes: file.len(),
                modified: (file.mtime(), file.mtime_nsec()),
                changed: (file.ctime(), file.ctime_nsec()),
            },
            Err(error) => Look::Unseen(error.to_string()),
        };
        files.iter().chain(&signatures).map(look).collect()
    }

    /// What is in it, for all slots.
    ///
    /// # Errors
    /// In words, of the first that cannot be read.
    pub fn sources(&self) -> Result<Sources, String> {
        Slot::ALL.into_iter().map(|slot| Ok((slot, self.source(slot)?))).collect()
    }

    /// What is in it for this slot.
    pub(crate) fn source(&self, slot: Slot) -> Result<Source, String> {
        let settings = self.settings.get(&slot).cloned().unwrap_or_else(|| "{}".to_owned());
        let file = self.file(slot);
        let component = read(&file).map_err(|why| {
            format!("{why}; set POLICY_DIR, or build it with `cargo xtask plugins`")
        })?;
        let what = file.display().to_string();
        self.trust
            .blob(&what, &component, signature(&file)?.as_deref())
            .map_err(|why| format!("the policy {what} is not taken: {why}"))?;
        Ok(Source { component, settings })
    }
}

/// A signature is a hundred bytes.
const SIGNATURE_BYTES: u64 = 4 << 10;

/// Where the signature of a component's file is: `pricing.wasm.sig`.
#[must_use]
pub fn signature_path(component: &Path) -> PathBuf {
    let mut name = component.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// The signature beside a component's file, if there is one.
///
/// # Errors
/// In words.
pub fn signature(component: &Path) -> Result<Option<String>, String> {
    let path = signature_path(component);
    let mut text = String::new();
    match File::open(&path).and_then(|file| file.take(SIGNATURE_BYTES).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("the signature {} cannot be read: {error}", path.display())),
    }
}

/// Reads a component's file, and no more of it than a component may have and one byte.
///
/// # Errors
/// In words.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let most = u64::try_from(COMPONENT_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut component = Vec::new();
    let read = || File::open(path)?.take(most).read_to_end(&mut component);
    match { read }() {
        Ok(_) => Ok(component),
        Err(error) => Err(format!("the policy {} cannot be read: {error}", path.display())),
    }
}
