//! Exchanges of keys: what pods' server, the jump host and our client offer for them, and when a server
//! of ours begins another one.

use russh::{Limits, kex};
use std::time::Duration;

/// OpenSSH's, less its hybrid with NTRU Prime, which russh does not have, and less groups of
/// Diffie-Hellman of more than 2048 bits, fixed or exchanged. russh computes an exchange on the thread
/// that serves all connections, with exponents of full length: one in the largest group takes 0.4 s, and
/// a client need not log in for that. russh leaves out the extensions that are of the other side.
pub static KEY_EXCHANGES: [kex::Name; 11] = [
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G14_SHA256,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// OpenSSH's client begins another exchange before it has sent or received so many bytes by AES, and
/// many fewer by ChaCha20: 2^32 blocks, as RFC 4344 wants it.
const READ_BYTES: usize = 1 << 36;
/// A packet of data has at least ten bytes, and one for a window nine: so many bytes of them are fewer
/// than 2^32 packets, after which ChaCha20 would use a nonce again. Answers to requests have less; a
/// client that makes so many of them, and never begins an exchange, harms nobody but itself.
const WRITTEN_BYTES: usize = 1 << 35;

/// When a server of ours begins another exchange: as late as is safe. Until a client knows of it, it may
/// have more under way than the two windows after which russh ends the connection, by a few uploads at
/// once over a long way. A client that begins one itself loses nothing.
#[must_use]
pub fn server_limits() -> Limits {
    Limits {
        rekey_read_limit: READ_BYTES,
        rekey_write_limit: WRITTEN_BYTES,
        // As OpenSSH's `RekeyLimit` by default.
        rekey_time_limit: Duration::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_first_and_no_nonce_is_used_again() {
        /// Of 16 bytes each.
        const BLOCKS: usize = 1 << 32;
        let limits = server_limits();
        assert!(limits.rekey_read_limit >= 16 * BLOCKS, "OpenSSH's client is first");
        assert!(limits.rekey_write_limit / 9 < 1 << 32, "packets of data and windows");
        assert_eq!(limits.rekey_time_limit, Duration::MAX, "no clock cuts uploads");
    }
}
