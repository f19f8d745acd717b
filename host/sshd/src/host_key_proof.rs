//! The proof of a server's host keys, for whoever knows a secret of that server: a login that fails.
//!
//! ```text
//! client                                                             server
//!   │ ◀── key exchange, by one of the host keys ────────────────────▶ │
//!   │ ─── keyboard-interactive, user paygress-host-keys-NONCE ──────▶ │
//!   │ ◀── instruction {"host_keys": ["kind base64", …], "mac": hex} ─ │
//! ```
//!
//! `mac` is HMAC-SHA256 over the nonce of the client and all keys. A server in between may pass on the
//! proof of another one, but then it has proved none of these keys in its own exchange.

use hmac::digest::Key;
use hmac::{Hmac, Mac};
use paygress_regular_file::read_at_most;
use russh::keys::PublicKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::path::Path;

/// The file with the secret, in the directory of the login.
pub const HOST_KEY_SECRET: &str = "host_key_secret";
/// No user has such a name: names of users are shorter.
const USER: &str = "paygress-host-keys-";
const PURPOSE: &[u8] = b"paygress host keys\0";
/// Of a secret, and of a nonce.
const BYTES: usize = 32;
/// A proof of eight keys, each of the longest kind, has less.
const MAX_PROOF_BYTES: usize = 16 * 1_024;
const MAX_KEYS: usize = 8;

/// What a server proves its host keys by: never printed; proofs are compared in constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKeySecret([u8; BYTES]);

impl HostKeySecret {
    /// That of the server of this name, derived from what the service alone knows. It reveals nothing
    /// of that.
    #[must_use]
    pub fn derive(seed: &[u8], server: &str) -> Self {
        let mut code = Self(Sha256::digest(seed).into()).code();
        code.update(PURPOSE);
        code.update(server.as_bytes());
        Self(code.finalize().into_bytes().into())
    }

    /// The content of its file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// That in the directory of a login; none where there is no such file.
    ///
    /// # Errors
    /// The file cannot be read, or has another length.
    pub fn of_login(directory: &Path) -> io::Result<Option<Self>> {
        // One byte more shows a file that is too long.
        let most = u64::try_from(BYTES).unwrap_or(u64::MAX).saturating_add(1);
        let bytes = match read_at_most(&directory.join(HOST_KEY_SECRET), most) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let secret: [u8; BYTES] = bytes.try_into().map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "the secret has another length")
        })?;
        Ok(Some(Self(secret)))
    }

    fn code(&self) -> Hmac<Sha256> {
        let mut key = Key::<Hmac<Sha256>>::default();
        key.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        <Hmac<Sha256> as Mac>::new(&key)
    }

    /// Over the nonce and all keys: no line has a line feed.
    fn code_of(&self, nonce: &[u8; BYTES], lines: &[String]) -> Hmac<Sha256> {
        let mut code = self.code();
        code.update(nonce);
        for line in lines {
            code.update(line.as_bytes());
            code.update(b"\n");
        }
        code
    }

    /// The host keys of a proof, if it is this secret's, made for this nonce, by the server that has
    /// proved this key.
    pub(crate) fn verify(
        &self,
        nonce: &Nonce,
        text: &str,
        exchanged: &PublicKey,
    ) -> Option<Vec<String>> {
        if text.len() > MAX_PROOF_BYTES {
            return None;
        }
        let Proof { host_keys, mac } = serde_json::from_str(text).ok()?;
        let is_line = |line: &String| !line.contains('\n');
        if host_keys.len() > MAX_KEYS || !host_keys.iter().all(is_line) {
            return None;
        }
        let code = self.code_of(&nonce.0, &host_keys);
        code.verify_slice(&hex::decode(mac).ok()?).ok()?;
        let is_exchanged = |line: &String| {
            PublicKey::from_openssh(line).is_ok_and(|key| key.key_data() == exchanged.key_data())
        };
        host_keys.iter().any(is_exchanged).then_some(host_keys)
    }
}

impl fmt::Debug for HostKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What a proof is made for: a new one for each.
pub(crate) struct Nonce([u8; BYTES]);

impl Nonce {
    /// # Errors
    /// The system has no randomness.
    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::from)?;
        Ok(Self(bytes))
    }

    /// The name of the user whose login requests the proof.
    pub(crate) fn user(&self) -> String {
        format!("{USER}{}", hex::encode(self.0))
    }
}

#[derive(Serialize, Deserialize)]
struct Proof {
    host_keys: Vec<String>,
    mac: String,
}

/// Proves the host keys of a server.
pub(crate) struct Prover {
    pub(crate) secret: HostKeySecret,
    /// All of them, `kind base64` each.
    pub(crate) lines: Vec<String>,
}

impl Prover {
    /// The instruction for a login under this name; none if it requests no proof.
    pub(crate) fn prove(&self, user: &str) -> Option<String> {
        let mut nonce = [0; BYTES];
        hex::decode_to_slice(user.strip_prefix(USER)?, &mut nonce).ok()?;
        let code = self.secret.code_of(&nonce, &self.lines).finalize().into_bytes();
        let proof = Proof { host_keys: self.lines.clone(), mac: hex::encode(code) };
        serde_json::to_string(&proof).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::new_host_key;
    use serde_json::Value;

    fn prover(secret: &HostKeySecret) -> (Prover, [PublicKey; 2]) {
        let keys = [(); 2].map(|()| new_host_key().unwrap().public_key().clone());
        let lines = keys.iter().map(|key| key.to_openssh().unwrap()).collect();
        (Prover { secret: secret.clone(), lines }, keys)
    }

    #[test]
    fn a_proof_counts_for_its_secret_its_nonce_its_keys_and_the_key_of_the_exchange() {
        let [secret, other] = ["a", "b"].map(|server| HostKeySecret::derive(b"a test", server));
        assert_ne!(secret, other);
        let (prover, keys) = prover(&secret);
        let nonce = Nonce::random().unwrap();
        let proof = prover.prove(&nonce.user()).unwrap();
        for key in &keys {
            assert_eq!(secret.verify(&nonce, &proof, key), Some(prover.lines.clone()));
        }
        let foreign = new_host_key().unwrap().public_key().clone();
        let later = Nonce::random().unwrap();
        assert_eq!(secret.verify(&nonce, &proof, &foreign), None, "passed on by another server");
        assert_eq!(secret.verify(&later, &proof, &keys[0]), None, "of an earlier request");
        assert_eq!(other.verify(&nonce, &proof, &keys[0]), None, "of another server");
        let forged = |field: &str, value: Value| {
            let mut forged: Value = serde_json::from_str(&proof).unwrap();
            forged[field] = value;
            secret.verify(&nonce, &forged.to_string(), &keys[0])
        };
        let line = Value::from(prover.lines[0].clone());
        let more = Value::from(vec![line.clone(); 9]);
        let joined = Value::from(vec![prover.lines.join("\n")]);
        for keys in [Value::from(vec![line]), joined, more, Value::from(Vec::<String>::new())] {
            assert_eq!(forged("host_keys", keys.clone()), None, "{keys}");
        }
        for mac in ["", "00", "zz", &"0".repeat(64)] {
            assert_eq!(forged("mac", mac.into()), None, "{mac}");
        }
        let long = format!("{proof}{}", " ".repeat(MAX_PROOF_BYTES));
        for text in ["", "{}", &long] {
            assert_eq!(secret.verify(&nonce, text, &keys[0]), None);
        }
    }

    #[test]
    fn only_the_name_with_a_nonce_requests_a_proof() {
        let (prover, _) = prover(&HostKeySecret::derive(b"a test", ""));
        let nonce = "0".repeat(2 * BYTES);
        assert!(prover.prove(&format!("{USER}{nonce}")).is_some());
        for user in ["alice", USER, &format!("{USER}{nonce}0"), &format!("{USER}{nonce}00"), &nonce]
        {
            assert!(prover.prove(user).is_none(), "{user}");
        }
    }

    #[test]
    fn the_secret_of_a_login_is_read_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let read = || HostKeySecret::of_login(directory.path());
        assert_eq!(read().unwrap(), None);
        let secret = HostKeySecret::derive(b"a test", "");
        let file = directory.path().join(HOST_KEY_SECRET);
        std::fs::write(&file, secret.to_bytes()).unwrap();
        assert_eq!(read().unwrap(), Some(secret.clone()));
        for length in [0, BYTES - 1, BYTES + 1] {
            std::fs::write(&file, vec![0; length]).unwrap();
            assert!(read().is_err(), "{length}");
        }
        assert_eq!(format!("{secret:?}"), "…");
    }
}
