//! `paygress-nostr`: see the library, and `k8s/images/README.md`.

#[cfg(target_env = "gnu")]
use std::ffi::{c_char, c_int};
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_env = "gnu")]
    resolve_without_nsswitch();
    paygress_pod_nostr::run()
}

/// Names are resolved by /etc/hosts and DNS, as in `paygress-sshd`: glibc, linked statically, would
/// load the libraries that the image's /etc/nsswitch.conf names besides, and crash with those of
/// another glibc.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn resolve_without_nsswitch() {
    unsafe extern "C" {
        /// Of glibc's `nss.h`; 0 is success.
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }
    // SAFETY: both are constants with a NUL at their end, and nothing is resolved yet. If it fails,
    // names are resolved as /etc/nsswitch.conf says.
    let _ = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
}
