use super::*;
use crate::coupon::Terms;
use paygress_policy_sdk::parse;
use secp256k1::{Keypair, Message, Secp256k1};

const UNTIL: u32 = 1_767_268_801;
const LAST_SECOND: u64 = 1_767_268_800;
const CUSTOMER: &str = "82341f882b6eabcd2ba7f1ef90aad961cf074af15b9ef44a09f9d2a8fbfbe6a2";
const OTHER: &str = "bearer:82341f882b6eabcd2ba7f1ef90aad961cf074af15b9ef44a09f9d2a8fbfbe6a2";
/// The operator's secret keys, and another.
const KEYS: [u8; 2] = [3, 4];
const FORGER: u8 = 5;

fn pair(secret: u8) -> Keypair {
    let mut bytes = [0; 32];
    bytes[31] = secret;
    Keypair::from_seckey_slice(&Secp256k1::new(), &bytes).unwrap()
}

/// As the operator signs it, for this customer if it is for one.
fn signed(secret: u8, terms: Terms, customer: &str) -> Coupon {
    let message = Message::from_digest(terms.digest(customer));
    let signature = Secp256k1::new().sign_schnorr_no_aux_rand(&message, &pair(secret));
    Coupon { terms, signature: signature.serialize() }
}

fn terms(percent: u8, holder: Holder) -> Terms {
    Terms { percent, until_unix_seconds: UNTIL, id: 1, holder }
}

fn settings() -> Settings {
    let keys = KEYS.map(|secret| pair(secret).x_only_public_key().0.to_string());
    Settings { keys: keys.into(), ..Settings::default() }
}

fn discount(coupon: impl ToString, customer: &str) -> Result<u8, CouponError> {
    settings().discount(&coupon.to_string(), customer, LAST_SECOND)
}

/// The code is that of another implementation of BIP-340, and in the suite.
#[test]
fn a_code_is_the_same_wherever_it_is_made() {
    let coupon = signed(3, terms(25, Holder::Everybody), "");
    let code = "ARlpVmHBAAAAAQB9dtyNLkYTxkVyyojPYfaUvDelC3wBew0Kr5DngxwyIzxBW4xq4mLAgpu_aX5WtAFWl3OyTp3RXDtwvuFvuiAR";
    assert_eq!(coupon.to_string(), code);
    assert_eq!(Coupon::read(code), Some(coupon));
}

#[test]
fn a_coupon_of_each_key_is_good_until_it_ends() {
    for secret in KEYS {
        let coupon = signed(secret, terms(25, Holder::Everybody), "");
        for customer in [CUSTOMER, OTHER, ""] {
            assert_eq!(discount(coupon, customer), Ok(25));
        }
        let ended = settings().discount(&coupon.to_string(), CUSTOMER, UNTIL.into());
        assert_eq!(ended, Err(CouponError::Expired));
    }
}

#[test]
fn a_customers_coupon_is_theirs_alone() {
    let coupon = signed(3, terms(99, Holder::OneCustomer), CUSTOMER);
    assert_eq!(discount(coupon, CUSTOMER), Ok(99));
    for other in [OTHER, ""] {
        assert_eq!(discount(coupon, other), Err(CouponError::OtherCustomer));
    }
    // Neither is it everybody's without the customer, nor is everybody's one customer's.
    let freed = Coupon { terms: terms(99, Holder::Everybody), ..coupon };
    assert_eq!(discount(freed, CUSTOMER), Err(CouponError::Forged));
    let bound = Coupon {
        terms: terms(25, Holder::OneCustomer),
        ..signed(3, terms(25, Holder::Everybody), "")
    };
    assert_eq!(discount(bound, ""), Err(CouponError::OtherCustomer));
}

#[test]
fn what_the_operator_has_not_signed_is_forged() {
    let good = signed(3, terms(25, Holder::Everybody), "");
    let later = Terms { until_unix_seconds: UNTIL + 1, ..good.terms };
    let numbered = Terms { id: 2, ..good.terms };
    for forged in [
        signed(FORGER, good.terms, ""),
        Coupon { terms: terms(26, Holder::Everybody), ..good },
        Coupon { terms: later, ..good },
        Coupon { terms: numbered, ..good },
        Coupon { signature: [0; 64], ..good },
        Coupon { signature: [0xff; 64], ..good },
    ] {
        assert_eq!(discount(forged, CUSTOMER), Err(CouponError::Forged), "{forged:?}");
    }
    let of_nobody = Settings::default().discount(&good.to_string(), CUSTOMER, 0);
    assert_eq!(of_nobody, Err(CouponError::Forged));
}

#[test]
fn a_withdrawn_coupon_is_refused_and_others_of_its_key_are_not() {
    let settings = Settings { withdrawn: vec![7, 1], ..settings() };
    let discount = |coupon: Coupon| settings.discount(&coupon.to_string(), CUSTOMER, LAST_SECOND);
    let everybodys = terms(25, Holder::Everybody);
    for secret in KEYS {
        assert_eq!(discount(signed(secret, everybodys, "")), Err(CouponError::Withdrawn));
        let another = Terms { id: 2, ..everybodys };
        assert_eq!(discount(signed(secret, another, "")), Ok(25));
    }
    let theirs = signed(3, terms(99, Holder::OneCustomer), CUSTOMER);
    assert_eq!(discount(theirs), Err(CouponError::Withdrawn));
    let ended = settings.discount(&theirs.to_string(), CUSTOMER, UNTIL.into());
    assert_eq!(ended, Err(CouponError::Expired));
}

#[test]
fn what_is_withdrawn_is_a_list_of_so_many_numbers() {
    let problems = |withdrawn: &str| -> Vec<(String, String)> {
        let read = parse::<Settings>(&format!("{{\"withdrawn\": {withdrawn}}}"));
        let problems = read.err().unwrap_or_default();
        problems.into_iter().map(|problem| (problem.path, problem.message)).collect()
    };
    let reported = |path: &str, message: &str| vec![(path.to_owned(), message.to_owned())];
    assert!(problems("[0, 4294967295]").is_empty());
    for bad in ["-1", "1.5", "\"1\"", "4294967296", "null"] {
        let message = "must be a whole number from 0 to 4294967295";
        assert_eq!(problems(&format!("[1, {bad}]")), reported("/withdrawn/1", message));
    }
    assert_eq!(problems("1"), reported("/withdrawn", "must be a list"));
    let numbers: Vec<u32> = (0..257).collect();
    assert!(problems(&format!("{:?}", &numbers[1..])).is_empty());
    let message = "must have at most 256 entries";
    assert_eq!(problems(&format!("{numbers:?}")), reported("/withdrawn", message));
}

#[test]
fn a_code_that_is_none_is_malformed() {
    let good = signed(3, terms(25, Holder::Everybody), "").to_string();
    for bad in [
        String::new(),
        "SUMMER".to_owned(),
        "é".repeat(50),
        good[..99].to_owned(),
        good[..96].to_owned(),
        format!("{good}A"),
        format!("{good}AAAA"),
        format!("{good}="),
        format!(" {good}"),
        // The version and the holder are known ones.
        good.replacen("AR", "Ah", 1),
        format!("{}I{}", &good[..14], &good[15..]),
        signed(3, terms(0, Holder::Everybody), "").to_string(),
        signed(3, terms(100, Holder::Everybody), "").to_string(),
    ] {
        assert_eq!(discount(&bad, CUSTOMER), Err(CouponError::Malformed), "{bad:?}");
    }
}

#[test]
fn a_refusal_says_what_is_wrong_and_what_to_do() {
    for (error, part) in [
        (CouponError::Malformed, "is no coupon"),
        (CouponError::Expired, "has ended"),
        (CouponError::Withdrawn, "the operator has withdrawn this coupon"),
        (CouponError::Forged, "is not signed by the operator"),
        (CouponError::OtherCustomer, "is another customer's"),
    ] {
        let refusal = Refusal::from(error);
        assert_eq!(refusal.code, "invalid_spec");
        let remedy = "; order the tier standard without it";
        assert!(refusal.message.contains(part) && refusal.message.ends_with(remedy));
    }
}
