//! The keys that the kernel keeps for a session: a process has those of the one that started it.

use std::io;

/// keyctl(2).
const JOIN_SESSION_KEYRING: libc::c_long = 1;

/// Leaves the keys of whoever has started this process: its programs have a keyring of their own.
///
/// # Errors
/// The kernel has no room for another keyring.
pub(crate) fn leave_session_keyring() -> io::Result<()> {
    // SAFETY: it takes a number and a pointer to a name; none: a new keyring without a name.
    #[allow(unsafe_code)]
    let keyring = unsafe {
        libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    if keyring >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // Where this is not permitted here, it is not in the pod either: it takes no keys.
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => Ok(()),
        _ => Err(error),
    }
}
