//! Public keys and hashes in hex.

use crate::problem::Problems;

/// Whether it is 64 lower-case hex digits: a public key as orders have it, or a SHA-256.
///
/// ```
/// use paygress_policy_sdk::is_hex_of_32_bytes;
///
/// assert!(is_hex_of_32_bytes(&"0f".repeat(32)));
/// assert!(!is_hex_of_32_bytes(&"0F".repeat(32)));
/// ```
#[must_use]
pub fn is_hex_of_32_bytes(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

/// Reports a setting, as [`Problems::add`] names it, that is no public key in lower-case hex.
pub fn check_public_key(key: &str, setting: &[&str], problems: &mut Problems) {
    if !is_hex_of_32_bytes(key) {
        problems.add(setting, "must be a public key of 64 lower-case hex digits");
    }
}
