//! Makes a coupon: signs its terms and prints its code. It needs neither the service nor a network.
#![allow(clippy::print_stdout)]

#[path = "../src/bip340.rs"]
mod bip340;
#[path = "../src/coupon.rs"]
mod coupon;

use anyhow::{Context, Result, ensure};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use bip340::PublicKey;
use clap::Parser;
use coupon::{Coupon, Holder, Terms};
use paygress_policy_sdk::is_hex_of_32_bytes;
use secp256k1::{Keypair, Message, Secp256k1, SecretKey};
use std::path::PathBuf;

const NSEC: Hrp = Hrp::parse_unchecked("nsec");

/// Make a coupon.
#[derive(Parser)]
struct Arguments {
    /// The file with the secret key: nsec1…, or 64 hex digits.
    key: PathBuf,
    /// The discount.
    #[arg(value_parser = clap::value_parser!(u8).range(1..=99))]
    percent: u8,
    /// The first second in which it is not accepted, since the Unix epoch.
    until: u32,
    /// Its number, by which it can be withdrawn: another one for each coupon.
    id: u32,
    /// The only customer who may use it: a public key in hex, or `bearer:` and 64 hex digits.
    customer: Option<String>,
}

fn main() -> Result<()> {
    let Arguments { key, percent, until, id, customer } = Arguments::parse();
    let customer = customer.unwrap_or_default();
    let holder = match customer.as_str() {
        "" => Holder::Everybody,
        _ => Holder::OneCustomer,
    };
    let digits = customer.strip_prefix("bearer:").unwrap_or(&customer);
    ensure!(
        holder == Holder::Everybody || is_hex_of_32_bytes(digits),
        "the customer must be a public key of 64 lower-case hex digits, or bearer: and 64 of them"
    );
    let file = key.display();
    let text = std::fs::read_to_string(&key).with_context(|| format!("{file} cannot be read"))?;
    let secret = read_key(text.trim())
        .with_context(|| format!("{file} has no secret key: nsec1…, or 64 hex digits"))?;
    let secp = Secp256k1::new();
    let pair = Keypair::from_secret_key(&secp, &secret);
    let terms = Terms { percent, until_unix_seconds: until, id, holder };
    let message = Message::from_digest(terms.digest(&customer));
    // Without randomness: the same terms have the same code.
    let signature = secp.sign_schnorr_no_aux_rand(&message, &pair).serialize();
    let code = Coupon { terms, signature }.to_string();
    let key = pair.x_only_public_key().0.to_string();
    // As the policy does.
    let is_good = PublicKey::from_hex(&key)
        .zip(Coupon::read(&code))
        .is_some_and(|(key, coupon)| coupon.is_signed(&key, &customer));
    ensure!(is_good, "the policy would not accept this coupon");
    eprintln!("for the setting keys: {key}");
    println!("{code}");
    Ok(())
}

fn read_key(text: &str) -> Option<SecretKey> {
    if !text.starts_with("nsec1") {
        return text.parse().ok();
    }
    let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
    let bytes: Vec<u8> = checked.byte_iter().collect();
    SecretKey::from_slice(&bytes).ok().filter(|_| checked.hrp() == NSEC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_nsec_or_hex() {
        let hex = format!("{}3", "0".repeat(63));
        let nsec = "nsec1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqps52s3re";
        let mut three = [0; 32];
        three[31] = 3;
        for good in [hex.as_str(), nsec] {
            assert_eq!(read_key(good).unwrap().secret_bytes(), three);
        }
        for bad in [
            "",
            &hex[1..],
            &"0".repeat(64),
            &nsec[..62],
            // The same number as a public key.
            "npub1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqpscums9v",
        ] {
            assert!(read_key(bad).is_none(), "{bad}");
        }
    }
}
