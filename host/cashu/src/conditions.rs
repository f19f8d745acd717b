//! Who can spend a proof: spending conditions (NUT-10), read as mints read them, and locks to the
//! service's key (NUT-11, NUT-28), opened by its signature.
//!
//! ```text
//! secret ─▶ JSON [kind, {…}]? ─ no ──────────────────────────▶ anybody
//!               └ P2PK ─▶ ours alone? ─ yes ─▶ refundable soon? ─ no ─▶ our signature
//!                             └ no ─▶ locktime over, and no refund keys? ─▶ anybody
//! ```
//! Anything else is refused before any request to the mint, each with its own reason.

use crate::refusal::invalid_token;
use cdk::nuts::nut10::Conditions;
use cdk::nuts::nut11::{P2PKWitness, SigFlag};
use cdk::nuts::{Nut10Secret, Proof, PublicKey, SecretKey, SpendingConditions, SwapRequest, nut28};
use cdk::secret::Secret;
use paygress_core::limits;
use paygress_core::model::refusal::Refusal;
use paygress_core::model::units::UnixTime;
use std::collections::HashSet;

/// The tags of NUT-11.
const TAGS: [&str; 6] = ["sigflag", "n_sigs", "locktime", "refund", "pubkeys", "n_sigs_refund"];

/// How a proof is spent.
enum Unlock {
    /// Without a signature.
    Free,
    /// With this key's signature.
    Sign(SecretKey),
}

/// A lock to keys (P2PK, NUT-11).
struct Lock {
    secret: Nut10Secret,
    key: PublicKey,
    conditions: Conditions,
}

/// The kind of a well-known secret. `None`: a plain one, whatever it looks like.
fn kind(secret: &Secret) -> Option<String> {
    let pair = serde_json::from_slice::<(String, serde_json::Value)>(secret.as_bytes());
    // cdk's mints read a list of the fields too.
    pair.ok().filter(|(_, data)| data.is_object() || data.is_array()).map(|(kind, _)| kind)
}

/// The lock of a secret; `None` if it is a plain one.
fn lock_of(secret: &Secret, ours: Option<&SecretKey>) -> Result<Option<Lock>, Refusal> {
    let Some(kind) = kind(secret) else { return Ok(None) };
    match kind.as_str() {
        "P2PK" => read_lock(secret).map(Some).ok_or_else(|| {
            refused("the token's lock (P2PK) is malformed, and mints may refuse it", ours)
        }),
        "HTLC" => Err(refused(
            "the token is locked to a hash (HTLC), which this service does not open",
            ours,
        )),
        _ => Err(refused("the token has a spending condition of a kind that is not known", ours)),
    }
}

fn read_lock(secret: &Secret) -> Option<Lock> {
    let secret = Nut10Secret::try_from(secret).ok()?;
    let tags = secret.secret_data().tags().cloned().unwrap_or_default();
    // Of a tag that stands twice, some mints read the first and some both.
    let known = |tag: &&Vec<String>| tag.first().is_some_and(|name| TAGS.contains(&name.as_str()));
    let mut names = HashSet::new();
    if !tags.iter().filter(known).all(|tag| names.insert(tag.first())) {
        return None;
    }
    match SpendingConditions::try_from(secret.clone()).ok()? {
        SpendingConditions::P2PKConditions { data, conditions } => {
            Some(Lock { secret, key: data, conditions: conditions.unwrap_or_default() })
        }
        SpendingConditions::HTLCConditions { .. } => None,
    }
}

/// A refusal that says what to send instead.
fn refused(reason: &str, ours: Option<&SecretKey>) -> Refusal {
    let alternative = ours.map_or_else(String::new, |ours| {
        format!(", or one that is locked (P2PK) to {} alone", ours.public_key())
    });
    invalid_token(format!("{reason}; send a token that is not locked{alternative}"))
}

impl Lock {
    /// The key whose signature opens it, if that is ours and nobody else's does.
    fn signing_key(
        &self,
        ephemeral: Option<&PublicKey>,
        ours: Option<&SecretKey>,
    ) -> Result<SecretKey, Refusal> {
        let Some(key) = ours else {
            return Err(refused(
                "the token is locked (P2PK), and this service has no key for locked tokens",
                ours,
            ));
        };
        let others = self.conditions.pubkeys.as_ref().map_or(0, Vec::len);
        match self.conditions.num_sigs.unwrap_or(1) {
            0 | 1 if others == 0 => {}
            0 | 1 => {
                return Err(refused(
                    "several keys can each open the token's lock (P2PK), so that somebody else could spend it first",
                    ours,
                ));
            }
            signatures => {
                return Err(refused(
                    &format!(
                        "the token's lock (P2PK) needs {signatures} signatures, and this service has one key"
                    ),
                    ours,
                ));
            }
        }
        if self.key.x_only_public_key() == key.public_key().x_only_public_key() {
            return Ok(key.clone());
        }
        ephemeral
            .and_then(|ephemeral| blinded_key(key, ephemeral, &self.key))
            .ok_or_else(|| refused("the token is locked (P2PK) to another key", ours))
    }

    /// How it is opened now and until the swap is done.
    fn unlock(
        &self,
        ephemeral: Option<&PublicKey>,
        ours: Option<&SecretKey>,
        now: UnixTime,
    ) -> Result<Unlock, Refusal> {
        let locktime = self.conditions.locktime.map(UnixTime);
        let is_over = locktime.is_some_and(|locktime| locktime < now);
        let is_refundable =
            self.conditions.refund_keys.as_ref().is_some_and(|keys| !keys.is_empty());
        match (self.signing_key(ephemeral, ours), locktime) {
            (Err(_), _) if is_over && !is_refundable => Ok(Unlock::Free),
            (Err(refusal), _) => Err(refusal),
            (Ok(_), _) if is_over && is_refundable => Err(refused(
                "the token's locktime is over, so that its refund keys can spend it",
                ours,
            )),
            (Ok(_), Some(locktime))
                if is_refundable && locktime < now.after(limits::TOKEN_LOCK_MARGIN) =>
            {
                let reason = format!(
                    "the token's locktime ends within {} minutes, and then its refund keys can spend it",
                    limits::TOKEN_LOCK_MARGIN.0.div_euclid(60)
                );
                Err(refused(&reason, ours))
            }
            (Ok(key), _) => Ok(Unlock::Sign(key)),
        }
    }

    fn signs_all(&self) -> bool {
        self.conditions.sig_flag == SigFlag::SigAll
    }

    /// Whether one signature over a whole swap can open both (SIG_ALL).
    fn is_like(&self, other: &Self) -> bool {
        let of = |lock: &Self| {
            let data = lock.secret.secret_data();
            (lock.secret.kind(), data.data().to_owned(), data.tags().cloned())
        };
        of(self) == of(other)
    }
}

/// Our key for a lock that is blinded (P2BK, NUT-28) to it alone: in the first slot.
fn blinded_key(ours: &SecretKey, ephemeral: &PublicKey, blinded: &PublicKey) -> Option<SecretKey> {
    let tweak = nut28::ecdh_kdf(ours, ephemeral, 0).ok()?;
    nut28::derive_signing_key_bip340(ours, &tweak, blinded).ok()
}

/// Refuses proofs (a secret, and the ephemeral key of a blinded lock) that the service cannot spend,
/// or that somebody named in a lock could spend before it.
pub(crate) fn require_spendable<'a>(
    proofs: impl Iterator<Item = (&'a Secret, Option<&'a PublicKey>)>,
    ours: Option<&SecretKey>,
    now: UnixTime,
) -> Result<(), Refusal> {
    let (mut plain, mut locks) = (0_usize, Vec::new());
    for (secret, ephemeral) in proofs {
        match lock_of(secret, ours)? {
            Some(lock) => {
                lock.unlock(ephemeral, ours, now)?;
                locks.push(lock);
            }
            None => plain = plain.saturating_add(1),
        }
    }
    let Some(all) = locks.iter().find(|lock| lock.signs_all()) else { return Ok(()) };
    if plain == 0 && locks.iter().all(|lock| lock.is_like(all)) {
        return Ok(());
    }
    Err(refused(
        "one of the token's locks demands a signature over all proofs (SIG_ALL), and the others are not like it",
        ours,
    ))
}

/// Signs each proof whose lock wants a signature of its own. Those that want one over the whole swap
/// are signed by [`sign_all`], once its outputs are known.
pub(crate) fn sign(
    proofs: &mut [Proof],
    ours: Option<&SecretKey>,
    now: UnixTime,
) -> Result<(), Refusal> {
    for proof in proofs {
        let Some(lock) = lock_of(&proof.secret, ours)? else { continue };
        let unlock = lock.unlock(proof.p2pk_e.as_ref(), ours, now)?;
        if lock.signs_all() {
            continue;
        }
        // The sender's ephemeral key is nobody else's business (NUT-28).
        proof.p2pk_e = None;
        if let Unlock::Sign(key) = unlock {
            proof.sign_p2pk(key).map_err(|_| refused("the token's lock cannot be opened", ours))?;
        }
    }
    Ok(())
}

/// Signs a swap whose inputs want a signature over all of it (SIG_ALL). The mint says what is wrong
/// if it cannot be signed.
pub(crate) fn sign_all(request: &mut SwapRequest, ours: Option<&SecretKey>) {
    let Some(first) = request.inputs().first() else { return };
    let lock = lock_of(&first.secret, ours).ok().flatten().filter(Lock::signs_all);
    let key = lock.and_then(|lock| lock.signing_key(first.p2pk_e.as_ref(), ours).ok());
    request.inputs_mut().iter_mut().for_each(|input| input.p2pk_e = None);
    let Some(key) = key else { return };
    // The message of NUT-11, and that of Nutshell up to 0.20.2. Mints count valid signatures.
    let secrets = request.inputs().iter().map(|input| input.secret.to_string());
    let outputs = request.outputs().iter().map(|output| output.blinded_secret.to_hex());
    let old_message: String = secrets.chain(outputs).collect();
    let old_signature = key.sign(old_message.as_bytes()).map(|signature| signature.to_string());
    if let (Ok(old_signature), Some(first)) = (old_signature, request.inputs_mut().first_mut()) {
        first.witness = Some(P2PKWitness { signatures: vec![old_signature] }.into());
    }
    if let Err(error) = request.sign_sig_all(key) {
        tracing::warn!(%error, "a swap was not signed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdk::Amount;
    use cdk::nuts::nut10::SpendingConditionVerification;
    use cdk::nuts::{BlindedMessage, Id};
    use paygress_core::model::refusal::ErrorType;
    use paygress_core::model::units::Seconds;
    use proptest::prelude::*;
    use std::str::FromStr;
    use std::time::{Duration, Instant};

    fn ours() -> SecretKey {
        SecretKey::from_hex("7".repeat(64)).unwrap()
    }

    fn theirs() -> PublicKey {
        SecretKey::from_hex("9".repeat(64)).unwrap().public_key()
    }

    fn read(secrets: &[String], ours: Option<&SecretKey>) -> Result<(), Refusal> {
        let secrets: Vec<Secret> = secrets.iter().map(Secret::new).collect();
        let proofs = secrets.iter().map(|secret| (secret, None));
        require_spendable(proofs, ours, UnixTime::now())
    }

    /// As NUT-10, cdk's mints and Nutshell's read them.
    #[test]
    fn a_secret_has_conditions_only_if_it_is_a_well_known_secret() {
        let key = theirs();
        let lock = format!(r#"["P2PK",{{"nonce":"00","data":"{key}","tags":[]}}]"#);
        for (secret, reason) in [
            (lock.clone(), Some("to another key")),
            (format!(" \t\r\n{lock} "), Some("to another key")),
            (lock.replace(',', " , ").replace('[', "[ "), Some("to another key")),
            (format!(r#"["P2PK",["00","{key}",[]]]"#), Some("to another key")),
            (r#"["P2PK",{}]"#.to_owned(), Some("malformed")),
            (lock.replace("[]", r#"[["n_sigs","0"]]"#), Some("malformed")),
            (lock.replace("[]", r#"[["locktime",1]]"#), Some("malformed")),
            (lock.replace("[]", r#"[["locktime","1"],["locktime","2"]]"#), Some("malformed")),
            (lock.replace("[]", r#"[["sigflag","SIG_NONE"]]"#), Some("malformed")),
            (lock.replace("P2PK", "HTLC"), Some("a hash (HTLC)")),
            (lock.replace("P2PK", "FUTURE"), Some("kind that is not known")),
            // Plain: a mint takes them without a signature.
            (format!("x{lock}"), None),
            (lock.trim_end_matches(']').to_owned(), None),
            (r#"["P2PK"]"#.to_owned(), None),
            (r#"["P2PK",{},{}]"#.to_owned(), None),
            (r#"["P2PK","data"]"#.to_owned(), None),
            (r#"[1,{}]"#.to_owned(), None),
            ("[".repeat(1_000), None),
            ("[".to_owned(), None),
            ("1".repeat(64), None),
        ] {
            match (read(std::slice::from_ref(&secret), Some(&ours())), reason) {
                (Ok(()), None) => {}
                (Err(refusal), Some(reason)) => {
                    assert!(refusal.message.contains(reason), "{secret}: {refusal}");
                    assert!(refusal.message.contains("send a token that is not locked"));
                }
                (read, _) => panic!("{secret}: {read:?} is not {reason:?}"),
            }
        }
    }

    /// A lock to our key with these tags.
    fn lock(tags: &str) -> String {
        let nonce = SecretKey::generate().public_key();
        let key = ours().public_key();
        format!(r#"["P2PK",{{"nonce":"{nonce}","data":"{key}","tags":[{tags}]}}]"#)
    }

    // long: a table of locks.
    #[test]
    fn a_lock_is_opened_if_our_signature_does_and_nobody_else_can_before_the_swap() {
        let now = UnixTime::now();
        let at = |time: UnixTime| format!(r#"["locktime","{}"]"#, time.0);
        let (past, far) = (at(now.minus(Seconds(60))), at(now.after(Seconds(86_400))));
        let soon = at(now.after(Seconds(limits::TOKEN_LOCK_MARGIN.0 - 60)));
        let other = theirs();
        let refund = format!(r#"["refund","{other}"]"#);
        let (all, inputs) = (r#"["sigflag","SIG_ALL"]"#, r#"["sigflag","SIG_INPUTS"]"#);
        let to_them =
            |tags: &str| lock(tags).replace(&ours().public_key().to_hex(), &other.to_hex());
        for (name, secrets, reason) in [
            ("ours", vec![lock("")], None),
            ("ours, x-only", vec![lock("").replace("\"03", "\"02")], None),
            ("a locktime", vec![lock(&format!("{far},{inputs}"))], None),
            ("a locktime that ends soon", vec![lock(&soon)], None),
            ("a locktime that is over", vec![lock(&past)], None),
            ("one signature", vec![lock(r#"["n_sigs","1"]"#)], None),
            ("an unknown tag", vec![lock(r#"["memo","x"],["memo","y"]"#)], None),
            ("refund keys later", vec![lock(&format!("{far},{refund}"))], None),
            ("refund keys without a locktime", vec![lock(&refund)], None),
            (
                "refund keys soon",
                vec![lock(&format!("{soon},{refund}"))],
                Some("ends within 30 minutes"),
            ),
            ("refund keys now", vec![lock(&format!("{past},{refund}"))], Some("locktime is over")),
            ("theirs", vec![to_them("")], Some("to another key")),
            ("theirs, later", vec![to_them(&far)], Some("to another key")),
            ("theirs, over", vec![to_them(&past)], None),
            (
                "theirs, refunded now",
                vec![to_them(&format!("{past},{refund}"))],
                Some("to another key"),
            ),
            ("1 of 2", vec![lock(&format!(r#"["pubkeys","{other}"]"#))], Some("several keys")),
            ("1 of 2, over", vec![lock(&format!(r#"["pubkeys","{other}"],{past}"#))], None),
            (
                "2 of 2",
                vec![lock(&format!(r#"["n_sigs","2"],["pubkeys","{other}"]"#))],
                Some("needs 2 signatures"),
            ),
            ("SIG_ALL", vec![lock(all)], None),
            (
                "SIG_ALL and refund keys soon",
                vec![lock(&format!("{all},{soon},{refund}"))],
                Some("30 minutes"),
            ),
            ("SIG_ALL twice", vec![lock(all), lock(all)], None),
            ("SIG_ALL and a plain one", vec![lock(all), "1".repeat(64)], Some("SIG_ALL")),
            ("SIG_ALL and another lock", vec![lock(""), lock(all)], Some("SIG_ALL")),
            (
                "SIG_ALL and other tags",
                vec![lock(all), lock(&format!("{all},{far}"))],
                Some("SIG_ALL"),
            ),
            ("one of several is theirs", vec![lock(""), to_them("")], Some("to another key")),
        ] {
            match (read(&secrets, Some(&ours())), reason) {
                (Ok(()), None) => {}
                (Err(refusal), Some(reason)) => {
                    assert_eq!(refusal.code, ErrorType::InvalidToken);
                    assert!(refusal.message.contains(reason), "{name}: {refusal}");
                    let key = ours().public_key().to_hex();
                    assert!(refusal.message.contains(&key), "{name} says what to send: {refusal}");
                }
                (read, _) => panic!("{name}: {read:?} is not {reason:?}"),
            }
        }
        let refusal = read(&[lock("")], None).unwrap_err();
        assert!(refusal.message.contains("has no key for locked tokens"), "{refusal}");
        assert!(read(&[lock(&past)], None).is_ok());
    }

    /// A blinded lock costs one multiplication on the curve for each proof, whatever it names.
    #[test]
    fn as_many_blinded_locks_as_a_token_has_proofs_are_read_in_bounded_time() {
        let ephemeral = theirs();
        let secrets: Vec<Secret> = (0..limits::TOKEN_PROOFS)
            .map(|n| Secret::new(format!(r#"["P2PK",{{"nonce":"{n}","data":"{ephemeral}"}}]"#)))
            .collect();
        let started = Instant::now();
        for secret in &secrets {
            let proof = std::iter::once((secret, Some(&ephemeral)));
            assert!(require_spendable(proof, Some(&ours()), UnixTime::now()).is_err());
        }
        let took = started.elapsed();
        println!("{} blinded locks: {took:?}", secrets.len());
        assert!(took < Duration::from_secs(10), "{took:?}");
    }

    #[test]
    fn a_swap_is_signed_over_its_inputs_and_outputs_in_both_forms() {
        let id = Id::from_str("009a1f293253e41e").unwrap();
        let all = r#"["sigflag","SIG_ALL"]"#;
        let inputs: Vec<Proof> = [lock(all), lock(all)]
            .into_iter()
            .map(|secret| Proof::new(Amount::from(2), id, Secret::new(secret), theirs()))
            .collect();
        let outputs = vec![BlindedMessage::new(Amount::from(4), id, theirs())];
        let mut request = SwapRequest::new(inputs.clone(), outputs);
        sign_all(&mut request, Some(&ours()));
        assert!(request.verify_spending_conditions().is_ok(), "as cdk's mints verify it");
        let [first, second] = request.inputs().as_slice() else { panic!("two inputs") };
        assert!(second.witness.is_none());
        let signatures = first.witness.as_ref().unwrap().signatures().unwrap();
        // As Nutshell 0.20.2 verifies it.
        let old = format!("{}{}{}", inputs[0].secret, inputs[1].secret, theirs().to_hex());
        let is_valid = |signature: &String| {
            let signature = signature.parse().unwrap();
            ours().public_key().verify(old.as_bytes(), &signature).is_ok()
        };
        assert_eq!(signatures.iter().filter(|signature| is_valid(signature)).count(), 1);
        // Without a lock over the whole, nothing is added.
        let plain = Proof::new(Amount::from(2), id, Secret::generate(), theirs());
        let mut request = SwapRequest::new(vec![plain], Vec::new());
        sign_all(&mut request, Some(&ours()));
        assert!(request.inputs()[0].witness.is_none());
    }

    proptest! {
        #[test]
        fn no_secret_panics(secret in "[ \\[]{0,3}(\"(P2PK|HTLC|X)\",\\{)?[\"\\[\\]{},:a-z0-9 ]{0,80}") {
            let _ = read(&[secret], Some(&ours()));
        }
    }
}
