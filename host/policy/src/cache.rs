//! The cache of compiled components.
//!
//! A file's name is `DIGEST-ENGINE.cwasm`: the SHA-256 of the component, and a hash of the engine's
//! version and settings. For a snapshot it is `DIGEST-SETTINGS-FORMAT-ENGINE.cwasm`, with the SHA-256
//! of the settings and the way in which snapshots are made. It ends with the SHA-256 of its content,
//! so that a torn write is not run.
//!
//! `DIGEST.trying` and `DIGEST.lock` are there while something is compiled.

use crate::files::{DirectoryError, private_directory, write_atomically};
use crate::limits::{CACHE_BYTES, COMPILE_ATTEMPTS};
use paygress_core::FileLock;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Bytes of the SHA-256 at the end of a file.
const CHECKSUM_BYTES: usize = 32;

/// A directory of compiled components.
#[derive(Clone)]
pub(crate) struct CompiledCache {
    directory: PathBuf,
    compiling: Arc<Compiling>,
}

/// What threads of this process compile at the moment: the same thing is compiled once.
#[derive(Default)]
struct Compiling {
    keys: Mutex<BTreeSet<String>>,
    done: Condvar,
    /// How often a thread found that another has the claim. For tests.
    waits: AtomicUsize,
}

/// The right to compile what has this key.
pub(crate) struct CompileClaim<'a> {
    compiling: &'a Compiling,
    key: &'a str,
}

impl Compiling {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_claimed(&self, keys: &BTreeSet<String>, key: &str) -> bool {
        let claimed = keys.contains(key);
        self.waits.fetch_add(usize::from(claimed), Ordering::Relaxed);
        claimed
    }

    /// Waits while another thread has the claim.
    fn claim<'a>(&'a self, key: &'a str) -> CompileClaim<'a> {
        let mut keys = self
            .done
            .wait_while(self.lock(), |keys| self.is_claimed(keys, key))
            .unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.to_owned());
        CompileClaim { compiling: self, key }
    }
}

impl Drop for CompileClaim<'_> {
    fn drop(&mut self) {
        self.compiling.lock().remove(self.key);
        self.compiling.done.notify_all();
    }
}

/// Why a component was not compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It is not a component, or this engine cannot compile it. Sanitized: the text comes from the
    /// component.
    #[error("{0}")]
    Invalid(String),
    /// Its instances would fill the host's memory.
    #[error("its tables start with {0} elements; the limit is {max}", max = crate::limits::INITIAL_ELEMENTS)]
    TooManyElements(u32),
    /// It took too much processor time.
    #[error(
        "compiling it took more than {seconds} s of processor time and was ended; make it smaller: leave out what it does not use, and let your compiler optimise for size"
    )]
    TooMuchTime { seconds: u64 },
    /// It took too long, on a machine that is busy with other things.
    #[error(
        "compiling it took more than {seconds} s and was ended; try again when the machine is less busy, or make the component smaller"
    )]
    TimedOut { seconds: u64 },
    /// It was refused the memory that it needs, or so deep a stack.
    #[error("compiling it needs more memory than the limit of {mebibytes} MiB; make it smaller")]
    OutOfMemory { mebibytes: u64 },
    /// Somebody else has killed the process that compiles: the kernel does so where the machine or the
    /// container has no memory left, whoever uses it.
    #[error(
        "it was not compiled: its process was killed from outside {} times; give the service more memory if the kernel did that, and try again",
        crate::limits::COMPILE_KILLS
    )]
    Killed,
    /// Its code is too large for the cache.
    #[error("its compiled code is larger than {} MiB; make it smaller", crate::limits::COMPILED_BYTES >> 20)]
    TooLarge,
    /// The process that compiles does not run.
    #[error(
        "it was not compiled: {0}; try again, and see whether the machine has memory and processes left"
    )]
    Failed(String),
    /// Earlier processes ended while they compiled it, for lack of memory for example.
    #[error(
        "the service ended {attempts} times while it compiled this component; remove {} to try again",
        .mark.display()
    )]
    Crashed {
        /// How often.
        attempts: usize,
        /// The file that counts the attempts.
        mark: PathBuf,
    },
}

impl CompileError {
    /// Whether the same attempt would fail again.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self, Self::TimedOut { .. } | Self::Killed | Self::Failed(_))
    }
}

/// The right to compile what has a key, among the processes that share the directory. The kernel
/// takes it from a process that has ended; the file alone means nothing.
struct ProcessClaim {
    path: PathBuf,
    _lock: FileLock,
}

impl ProcessClaim {
    /// Waits while another process has the claim.
    fn claim(path: PathBuf) -> io::Result<Self> {
        loop {
            let file = File::options().create(true).append(true).mode(0o600).open(&path)?;
            let locked = file.metadata()?;
            let lock = FileLock::lock(file)?;
            // Whoever had it has removed the file, and the next one may have made another.
            let named = std::fs::metadata(&path);
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
                return Ok(Self { path, _lock: lock });
            }
        }
    }
}

impl Drop for ProcessClaim {
    fn drop(&mut self) {
        // Before the lock is given back, or it would be another's file by then. Best effort: what is
        // left is locked again.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl CompiledCache {
    /// Opens a directory that only this user can access: whoever can write there decides which code
    /// this process runs.
    pub(crate) fn open(directory: &Path) -> Result<Self, DirectoryError> {
        private_directory(directory)?;
        Ok(Self { directory: directory.to_owned(), compiling: Arc::default() })
    }

    /// The compiled component of a key, from the cache if it is there.
    pub(crate) fn get_or_compile<E: From<CompileError>>(
        &self,
        engine: &Engine,
        key: &str,
        compile: impl FnOnce() -> Result<Component, E>,
    ) -> Result<Component, E> {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let path = self.directory.join(format!("{key}-{:016x}.cwasm", hasher.finish()));
        let _claim = self.compiling.claim(key);
        if let Some(component) = load(engine, &path) {
            return Ok(component);
        }
        let lock = self.directory.join(format!("{key}.lock"));
        let _process_claim = ProcessClaim::claim(lock.clone())
            .inspect_err(|error| {
                let path = lock.display();
                tracing::warn!(%error, %path, "another process may compile the same policy");
            })
            .ok();
        // Another process may have compiled it meanwhile.
        if let Some(component) = load(engine, &path) {
            return Ok(component);
        }
        let component = attempt(&self.directory.join(format!("{key}.trying")), compile)?;
        if let Err(error) = save(&component, &path) {
            tracing::warn!(%error, path = %path.display(), "a compiled policy could not be cached");
        }
        self.evict_except(&path);
        Ok(component)
    }

    /// Keeps other threads from compiling what has this key.
    #[cfg(test)]
    pub(crate) fn claim<'a>(&'a self, key: &'a str) -> CompileClaim<'a> {
        self.compiling.claim(key)
    }

    /// Whether a thread waits, or has waited, for such a claim.
    #[cfg(test)]
    pub(crate) fn has_waited(&self) -> bool {
        self.compiling.waits.load(Ordering::Relaxed) > 0
    }

    /// Removes the least recently used files until the rest is small enough. Best effort: the next
    /// compilation tries again.
    fn evict_except(&self, keep: &Path) {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut compiled: Vec<(SystemTime, u64, PathBuf)> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
            .filter_map(|path| {
                std::fs::metadata(&path)
                    .ok()
                    .and_then(|file| Some((file.modified().ok()?, file.len(), path)))
            })
            .collect();
        compiled.sort();
        let mut bytes =
            compiled.iter().fold(0_u64, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
        for (_, size, path) in compiled {
            if bytes <= CACHE_BYTES {
                return;
            }
            if path != keep && std::fs::remove_file(&path).is_ok() {
                bytes = bytes.saturating_sub(size);
            }
        }
    }
}

fn save(component: &Component, path: &Path) -> io::Result<()> {
    let code = component.serialize().map_err(io::Error::other)?;
    write_atomically(path, &[&code, &Sha256::digest(&code)])
}

fn load(engine: &Engine, path: &Path) -> Option<Component> {
    let code = std::fs::read(path).ok()?;
    let (code, checksum) = code.split_at_checked(code.len().checked_sub(CHECKSUM_BYTES)?)?;
    if Sha256::digest(code).as_slice() != checksum {
        return None;
    }
    // SAFETY: only code that `Component::serialize` made may come here. The directory belongs to
    // this user and nobody else can write there (checked when it is opened), and the checksum rules
    // out a file that was cut short.
    #[allow(unsafe_code)]
    let component = unsafe { Component::deserialize(engine, code) };
    // Marks it as recently used. Best effort.
    let _ = File::options()
        .append(true)
        .open(path)
        .and_then(|file| file.set_modified(SystemTime::now()));
    component.ok()
}

/// Runs work that may end this process, and records that it began: a service that restarts must not
/// crash over the same component forever.
fn attempt<T, E: From<CompileError>>(
    mark: &Path,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let attempts = std::fs::read(mark).map_or(0, |marks| marks.len());
    if attempts >= COMPILE_ATTEMPTS {
        return Err(CompileError::Crashed { attempts, mark: mark.to_owned() }.into());
    }
    let begun = File::options()
        .create(true)
        .append(true)
        .open(mark)
        .and_then(|mut file| file.write_all(b"."));
    if let Err(error) = begun {
        tracing::warn!(%error, path = %mark.display(), "a compilation attempt could not be recorded");
    }
    let done = work();
    // Best effort: it may not exist.
    let _ = std::fs::remove_file(mark);
    done
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    /// A component with nothing in it.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn threads_that_need_the_same_component_compile_it_once() {
        const THREADS: usize = 4;
        let directory = tempfile::tempdir().unwrap();
        let cache = CompiledCache::open(&directory.path().join("compiled")).unwrap();
        let (engine, compiled) = (Engine::default(), AtomicUsize::new(0));
        let together = Barrier::new(THREADS);
        let compile = || {
            compiled.fetch_add(1, Ordering::Relaxed);
            Component::from_binary(&engine, EMPTY)
                .map_err(|error| CompileError::Invalid(error.to_string()))
        };
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    together.wait();
                    cache.get_or_compile(&engine, "empty", compile).unwrap();
                });
            }
        });
        assert_eq!(compiled.load(Ordering::Relaxed), 1);
        // What has another key is another component; a later process finds what is there.
        cache.get_or_compile(&engine, "other", compile).unwrap();
        let again = CompiledCache::open(&directory.path().join("compiled")).unwrap();
        again.get_or_compile(&engine, "empty", compile).unwrap();
        assert_eq!(compiled.load(Ordering::Relaxed), 2);
    }
    /// Each with a lock of its own, as processes have it.
    #[test]
    fn processes_that_need_the_same_component_compile_it_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("compiled");
        let open = || CompiledCache::open(&path).unwrap();
        let (engine, compiled) = (Engine::default(), AtomicUsize::new(0));
        let compile = || {
            compiled.fetch_add(1, Ordering::Relaxed);
            Component::from_binary(&engine, EMPTY)
                .map_err(|error| CompileError::Invalid(error.to_string()))
        };
        open();
        // Of a process that was killed.
        std::fs::write(path.join("empty.lock"), "").unwrap();
        let together = Barrier::new(2);
        std::thread::scope(|scope| {
            for cache in [open(), open()] {
                let (together, engine) = (&together, &engine);
                scope.spawn(move || {
                    together.wait();
                    cache.get_or_compile(engine, "empty", compile).unwrap();
                });
            }
        });
        assert_eq!(compiled.load(Ordering::Relaxed), 1);
        let files: Vec<_> = std::fs::read_dir(&path).unwrap().map(Result::unwrap).collect();
        assert!(files.len() == 1 && files[0].path().extension().unwrap() == "cwasm", "{files:?}");
    }

    #[test]
    fn a_claim_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        let first = ProcessClaim::claim(path.clone()).unwrap();
        let second = File::options().append(true).open(&path).unwrap();
        assert!(second.try_lock().is_err());
        drop(first);
        assert!(!path.exists());
        // What was opened before is not what others lock now.
        second.lock().unwrap();
        drop(ProcessClaim::claim(path).unwrap());
    }
}
