//! Patterns of OpenSSH: `*` and `?`, and lists of addresses (ssh_config(5), PATTERNS).

use std::net::{IpAddr, Ipv4Addr};

/// Patterns of one list.
const MAX_PATTERNS: usize = 256;
/// The longest text that may be an address with the length of its prefix.
const MAX_ADDRESS_BYTES: usize = 63;

/// Whether a pattern is all of a text.
pub(crate) fn is_match(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    // What follows the last `*`, and what that has not taken yet.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => return true,
            (Some((b'*', rest)), _) => {
                pattern = rest;
                star = Some((rest, text));
            }
            (Some((one, rest)), Some((byte, after))) if *one == b'?' || one == byte => {
                (pattern, text) = (rest, after);
            }
            _ => {
                let Some((rest, taken)) = star else { return false };
                let Some((_, after)) = taken.split_first() else { return false };
                star = Some((rest, after));
                (pattern, text) = (rest, after);
            }
        }
    }
}

/// Whether a list is short enough to be looked through.
pub(crate) fn is_bounded(list: &str) -> bool {
    list.split(',').count() <= MAX_PATTERNS
}

/// Whether a list of patterns, networks and their negations has this address. A list with a mistake
/// has none. Names are never looked up (`UseDNS no`): they match no address.
pub(crate) fn has_address(list: &str, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let text = address.to_string();
    let mut is_found = false;
    for pattern in list.split(',') {
        let (pattern, is_negated) = match pattern.strip_prefix('!') {
            Some(pattern) => (pattern, true),
            None => (pattern, false),
        };
        let matches = match Pattern::parse(pattern) {
            Pattern::Mistake => return false,
            Pattern::Network { address: network, length } => {
                network.is_ipv4() == address.is_ipv4()
                    && prefix(network, length) == prefix(address, length)
            }
            Pattern::Text => is_match(&pattern.to_ascii_lowercase(), &text),
        };
        match (matches, is_negated) {
            (true, true) => return false,
            (true, false) => is_found = true,
            (false, _) => {}
        }
    }
    is_found
}

/// One of a list, without its `!`.
enum Pattern {
    Network { address: IpAddr, length: u32 },
    Text,
    Mistake,
}

impl Pattern {
    fn parse(text: &str) -> Self {
        if text.is_empty() {
            return Self::Mistake;
        }
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let length = match length.map(prefix_length) {
            Some(None) => return Self::Text,
            Some(length) => length,
            None => None,
        };
        let Some(address) = parse_address(address) else {
            // The zone of an address, which must not be a negation of nothing.
            return if address.contains('%') { Self::Mistake } else { Self::Text };
        };
        let length = length.unwrap_or(width(address));
        if text.len() > MAX_ADDRESS_BYTES || length > width(address) {
            return Self::Mistake;
        }
        let host_bits = width(address).saturating_sub(length);
        let network = prefix(address, length).checked_shl(host_bits).unwrap_or(0);
        if network == bits(address) { Self::Network { address, length } } else { Self::Mistake }
    }
}

/// As getaddrinfo(3) reads it, and so OpenSSH.
fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| numbers_of_address(text).map(IpAddr::V4))
}

/// One to four numbers as inet_aton(3) has them, `10.1` or `0x7f.1`: the last one fills what is left.
fn numbers_of_address(text: &str) -> Option<Ipv4Addr> {
    let (first, last) = match text.rsplit_once('.') {
        Some((first, last)) => (Some(first), last),
        None => (None, text),
    };
    let (mut address, mut left) = (0_u32, u32::BITS);
    for part in first.into_iter().flat_map(|first| first.split('.')) {
        left = left.checked_sub(u8::BITS).filter(|left| *left > 0)?;
        let byte = u8::try_from(number(part)?).ok()?;
        address |= u32::from(byte).checked_shl(left)?;
    }
    let last = number(last)?;
    let fits = last.checked_shr(left).unwrap_or(0) == 0;
    fits.then(|| Ipv4Addr::from(address | last))
}

/// Decimal, octal or hexadecimal, as in C.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    let is_number = digits.chars().all(|c| c.is_digit(radix));
    u32::from_str_radix(digits, radix).ok().filter(|_| is_number)
}

/// What follows the `/`.
fn prefix_length(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    text.parse::<u32>().ok().filter(|length| is_number && *length <= 128)
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The first bits of an address, as a number.
fn prefix(address: IpAddr, length: u32) -> u128 {
    bits(address).checked_shr(width(address).saturating_sub(length)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("?", "", false),
            ("a?c", "abc", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "abab", true),
            ("**", "abc", true),
            ("127.0.0.?", "127.0.0.12", false),
        ] {
            assert_eq!(is_match(pattern, text), expected, "{pattern} {text}");
        }
        let (pattern, text) = ("*a".repeat(4_000), "a".repeat(3_999));
        assert!(!is_match(&pattern, &text), "and takes no time");
    }

    #[test]
    fn a_list_of_addresses_is_read_as_openssh_does() {
        let client = "10.1.2.3".parse().unwrap();
        for (list, expected) in [
            ("10.1.2.3", true),
            ("10.1.2.4", false),
            ("10.0.0.0/8", true),
            ("0.0.0.0/0", true),
            ("::/0", false),
            ("10.1.2.*", true),
            ("10.1.2.?", true),
            ("*", true),
            ("host.example", false),
            ("!10.1.2.3", false),
            ("!10.1.2.4", false),
            ("*,!10.1.2.3", false),
            ("!10.1.2.0/24,10.0.0.0/8", false),
            ("!10.9.0.0/16,10.0.0.0/8", true),
            // Mistakes: nobody logs in by such a list.
            ("", false),
            ("10.1.2.3,", false),
            ("*,!", false),
            ("*,10.1.2.3/8", false),
            ("*,10.0.0.0/33", false),
            ("*,012.1.2.3/8", false),
            ("*,fe80::1%eth0", false),
            // No length of a prefix, so no address.
            ("*,10.0.0.0/129", true),
            ("*,10.0.0.0/", true),
            ("*,host/8", true),
        ] {
            assert_eq!(has_address(list, client), expected, "{list}");
        }
        let mapped = "::ffff:10.1.2.3".parse().unwrap();
        assert!(has_address("10.0.0.0/8", mapped), "a client of the socket for both families");
        let client = "2001:db8::1".parse().unwrap();
        for (list, expected) in [
            ("2001:db8::/32", true),
            ("2001:DB8::1", true),
            ("2001:DB8:*", true),
            ("2001:db9::/32", false),
            ("::/0", true),
            ("0.0.0.0/0", false),
        ] {
            assert_eq!(has_address(list, client), expected, "{list}");
        }
    }

    #[test]
    fn an_address_is_spelled_as_getaddrinfo_takes_it() {
        let client = "10.1.2.3".parse().unwrap();
        for (list, expected) in [
            ("10.66051", true),
            ("0x0a.1.2.3", true),
            ("0XA010203", true),
            ("012.1.0x203", true),
            ("012.0.0.0/8", true),
            ("*,!10.66051", false),
            ("*,!0x0a.1.2.3", false),
            ("*,!167838211", false),
            // Another one.
            ("*,!10.1", true),
            ("*,!010.1.2.3", true),
            // None.
            ("*,!10.16777216", true),
            ("*,!0x.1", true),
            ("*,!08.1", true),
            ("*,!+10.66051", true),
            ("*,!256.1.2.3", true),
            ("*,!10.1.2.3.0", true),
            ("*,!10.1.2.", true),
        ] {
            assert_eq!(has_address(list, client), expected, "{list}");
        }
    }

    #[test]
    fn lists_are_bounded() {
        assert!(is_bounded(&vec!["a"; MAX_PATTERNS].join(",")));
        assert!(!is_bounded(&vec!["a"; MAX_PATTERNS + 1].join(",")));
    }
}
