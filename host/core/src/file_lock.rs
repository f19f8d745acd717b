//! A lock of a file that ends when it is dropped.
//!
//! Closing a file gives its lock back only with the last copy of the descriptor, and a thread that
//! starts a program at that moment has copied all of them for it. A lock that is given back explicitly
//! is given back for the copies too.

use std::borrow::Borrow;
use std::fs::{File, TryLockError};
use std::io;

/// An exclusive lock, against other processes and against whoever opens the file again. With a
/// reference, the file stays open afterwards.
#[derive(Debug)]
pub struct FileLock<F: Borrow<File> = File>(F);

impl<F: Borrow<File>> FileLock<F> {
    /// Waits while another has it.
    ///
    /// # Errors
    /// The file cannot be locked.
    pub fn lock(file: F) -> io::Result<Self> {
        file.borrow().lock()?;
        Ok(Self(file))
    }

    /// Does not wait.
    ///
    /// # Errors
    /// Another has it, or the file cannot be locked.
    pub fn try_lock(file: F) -> Result<Self, TryLockError> {
        file.borrow().try_lock()?;
        Ok(Self(file))
    }
}

impl<F: Borrow<File>> Drop for FileLock<F> {
    fn drop(&mut self) {
        // What cannot be unlocked is so when it is closed.
        let _ = self.0.borrow().unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_does_not_keep_the_lock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lock = FileLock::try_lock(file.reopen().unwrap()).unwrap();
        // As a child has it between fork and exec.
        let copy = lock.0.try_clone().unwrap();
        let again = FileLock::try_lock(file.reopen().unwrap());
        assert!(matches!(again, Err(TryLockError::WouldBlock)));
        drop(lock);
        let lock = FileLock::try_lock(file.reopen().unwrap()).unwrap();
        drop((lock, copy));
        FileLock::lock(file.reopen().unwrap()).unwrap();
    }
}
