//! The code of a coupon: 75 bytes in base64url without padding, so 100 characters.
//!
//! | bytes | |
//! |---|---|
//! | 1 | the version, 1 |
//! | 1 | the discount in percent, 1 to 99 |
//! | 4 | the first second in which it is not accepted, since the Unix epoch, big-endian |
//! | 4 | its number, by which it can be withdrawn, big-endian |
//! | 1 | 0: for everybody; 1: for one customer, whom the code does not name |
//! | 64 | the signature (BIP-340) |
//!
//! What is signed is a hash for this purpose alone, so that no other signature of the key's, of an
//! event for instance, is a coupon: of the first 11 bytes and of the customer, if it is for one.

use crate::bip340::{PublicKey, tagged_hash};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::fmt;

const VERSION: u8 = 1;
const TERMS_BYTES: usize = 11;
/// Of the hash that is signed.
const TAG: &str = "paygress/coupon";

/// Whom a coupon is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Everybody,
    OneCustomer,
}

/// What the operator signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) percent: u8,
    pub(crate) until_unix_seconds: u32,
    pub(crate) id: u32,
    pub(crate) holder: Holder,
}

impl Terms {
    /// What is signed. `customer`: as orders have them; it counts if the coupon is for one.
    pub(crate) fn digest(&self, customer: &str) -> [u8; 32] {
        let customer = match self.holder {
            Holder::Everybody => "",
            Holder::OneCustomer => customer,
        };
        tagged_hash(TAG, &[&self.to_bytes(), customer.as_bytes()])
    }

    fn to_bytes(self) -> [u8; TERMS_BYTES] {
        let [a, b, c, d] = self.until_unix_seconds.to_be_bytes();
        let [e, f, g, h] = self.id.to_be_bytes();
        let holder = match self.holder {
            Holder::Everybody => 0,
            Holder::OneCustomer => 1,
        };
        [VERSION, self.percent, a, b, c, d, e, f, g, h, holder]
    }

    fn from_bytes(
        [version, percent, a, b, c, d, e, f, g, h, holder]: [u8; TERMS_BYTES],
    ) -> Option<Self> {
        let holder = match holder {
            0 => Holder::Everybody,
            1 => Holder::OneCustomer,
            _ => return None,
        };
        let terms = Self {
            percent,
            until_unix_seconds: u32::from_be_bytes([a, b, c, d]),
            id: u32::from_be_bytes([e, f, g, h]),
            holder,
        };
        (version == VERSION && (1..=99).contains(&percent)).then_some(terms)
    }
}

/// Terms with a signature. Shown as its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coupon {
    pub(crate) terms: Terms,
    pub(crate) signature: [u8; 64],
}

impl Coupon {
    /// Reads a code. `None`: it is none.
    pub(crate) fn read(code: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(code).ok()?;
        let (terms, signature) = bytes.split_first_chunk()?;
        Some(Self { terms: Terms::from_bytes(*terms)?, signature: signature.try_into().ok()? })
    }

    /// Whether this key has signed it for this customer, or for everybody.
    pub(crate) fn is_signed(&self, key: &PublicKey, customer: &str) -> bool {
        key.has_signed(&self.terms.digest(customer), &self.signature)
    }
}

impl fmt::Display for Coupon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.terms.to_bytes().as_slice(), self.signature.as_slice()].concat();
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}
