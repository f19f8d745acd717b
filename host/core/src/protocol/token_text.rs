//! Tokens as people, wallets and chats pass them on.

use crate::model::secret::Secret;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// URI schemes of tokens, the longest first: clients differ in the slashes.
const SCHEMES: [&str; 4] = ["web+cashu://", "web+cashu:", "cashu://", "cashu:"];
const QUOTES: &[char] = &[
    '"', '\'', '`', '<', '>', '\u{ab}', '\u{bb}', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}',
    '\u{201e}',
];

/// The token in a text, in the one form that the service goes on with: without what surrounds it (a
/// wallet's link, a URI scheme, quotes, line breaks), unhidden, percent-decoded, in the URL-safe
/// alphabet. What is not known is left: the wallet says what is wrong with it. Doing it twice
/// changes nothing.
#[must_use]
pub fn token_text(text: &str) -> Secret {
    let text = revealed(text).map_or(Cow::Borrowed(text), Cow::Owned);
    let text = percent_decode_str(&text).decode_utf8_lossy();
    let text: String = text.chars().filter(|c| !is_filler(*c)).collect();
    let text = without_scheme(link_token(text.trim_matches(QUOTES)));
    Secret::new(match text.starts_with("cashu") {
        true => text.replace('+', "-").replace('/', "_"),
        false => text.to_owned(),
    })
}

/// Whether the text hides a token behind an emoji: then the visible text around it is no part of
/// the token.
#[must_use]
pub fn hides_token(text: &str) -> bool {
    revealed(text).is_some()
}

/// Blanks, line breaks and what is not visible, from wrapped lines and rich text.
fn is_filler(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn without_scheme(text: &str) -> &str {
    let found = SCHEMES.iter().find_map(|scheme| strip_prefix_ignoring_case(text, scheme));
    found.unwrap_or(text)
}

/// What a wallet's link holds: `https://wallet.example/#token=…`.
fn link_token(text: &str) -> &str {
    let is_link = ["https://", "http://"]
        .iter()
        .any(|scheme| strip_prefix_ignoring_case(text, scheme).is_some());
    let Some((_, token)) = text.split_once("token=").filter(|_| is_link) else { return text };
    match token.split_once(['&', '#']) {
        // A second token is left, to be refused.
        Some((token, rest)) if !rest.contains("cashu") => token,
        _ => token,
    }
}

/// The tokens that variation selectors hide behind an emoji, as cashu.me does.
fn revealed(text: &str) -> Option<String> {
    let hidden: String = text
        .split(|c| selected_byte(c).is_none())
        .filter_map(|run| String::from_utf8(run.chars().filter_map(selected_byte).collect()).ok())
        .filter(|run| run.contains("cashu"))
        .collect();
    (!hidden.is_empty()).then_some(hidden)
}

/// The byte that a variation selector stands for.
fn selected_byte(c: char) -> Option<u8> {
    let c = u32::from(c);
    let byte = match c {
        0xfe00..=0xfe0f => c.checked_sub(0xfe00),
        0xe0100..=0xe01ef => c.checked_sub(0xe00f0),
        _ => None,
    };
    byte.and_then(|byte| u8::try_from(byte).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use crate::testing::{TOKEN, forms_of_the_token, hidden};
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    #[test]
    fn whatever_surrounds_a_token_it_is_the_same_token() {
        // A message with this blank in it is not taken for a token alone.
        let blank = "cashu Bo2F0-_9gaJ haUgA".to_owned();
        for text in forms_of_the_token().into_iter().chain([blank]) {
            let read = token_text(&text);
            assert_eq!(read.expose(), TOKEN, "{text}");
            assert_eq!(hides_token(&text), text.contains('\u{1f95c}'), "{text}");
            assert_eq!(token_text(read.expose()), read, "{text}");
        }
    }

    #[test]
    fn what_holds_no_token_or_two_is_left_for_the_wallet_to_refuse() {
        for (text, expected) in [
            ("", ""),
            (" \n", ""),
            ("hi", "hi"),
            ("creqApWF0gaNhdGVub3N0cmFheKlucH", "creqApWF0gaNhdGVub3N0cmFheKlucH"),
            ("https://wallet.example/", "https://wallet.example/"),
            ("\u{1f95c}\u{fe0f}", "\u{1f95c}\u{fe0f}"),
            ("cashuBab cashuBcd", "cashuBabcashuBcd"),
            (
                "https://w.example/#token=cashuBab https://w.example/#token=cashuBcd",
                "cashuBabhttps:__w.example_#token=cashuBcd",
            ),
        ] {
            assert_eq!(token_text(text).expose(), expected, "{text}");
        }
        let two = format!("{} {}", hidden("cashuBab"), hidden("cashuBcd"));
        assert_eq!(token_text(&two).expose(), "cashuBabcashuBcd");
    }

    #[test]
    fn the_largest_request_is_read_in_linear_time_and_grows_nothing() {
        let longest = limits::REQUEST_BYTES;
        for unit in [
            "%",
            "%41",
            "\u{e0153}",
            "\u{e0153}a",
            "cashu:",
            "token=",
            "https://",
            "a b",
            "\"",
            "\u{fe0f}",
        ] {
            let text = unit.repeat(longest / unit.len());
            let started = Instant::now();
            let read = token_text(&text);
            let took = started.elapsed();
            println!("{unit:?} x {}: {took:?}", text.len());
            assert!(took < Duration::from_secs(5), "{unit:?}: {took:?}");
            assert!(read.expose().len() <= text.len(), "{unit:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_reading_it_twice_changes_nothing(text in "[cashuB:/%\\x{e0153}\"+_ A-Z0-9]{0,60}") {
            let once = token_text(&text);
            let twice = token_text(once.expose());
            prop_assert!(once == twice || once.expose().contains('%') || !once.expose().starts_with("cashuB"));
        }
    }
}
