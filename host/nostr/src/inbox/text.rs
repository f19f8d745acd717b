//! What a message's text asks for: JSON as a client writes it, or a token as a person sends it.

use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::protocol::{Request, RequestBody, hides_token, sorted, token_text};

const EXAMPLE: &str = r#"send JSON such as {"cashu_token": "cashuB…"}, or the token alone for the default pod; {"pod_name": "…", "cashu_token": "cashuB…"} extends a pod"#;

/// Reads a request. A token alone, in any form that [`token_text`] reads, is an order of the default
/// pod: every other field of one may be left out, so that it cannot mean anything else.
///
/// # Errors
/// The refusal that says what to send.
pub(super) fn parse(text: &str) -> Result<Request, Refusal> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with('{') {
        return Request::parse(text);
    }
    let token = token_text(text);
    let tokens = text.split_whitespace().filter(|word| is_token(token_text(word).expose())).count();
    match (tokens, is_token(token.expose())) {
        (0 | 1, true) if is_alone(text) => {
            let token = Some(token.expose().to_owned());
            let body = RequestBody { cashu_token: token, ..RequestBody::default() };
            Request::parse(&sorted(&body).to_string())
        }
        (0, false) => Err(unreadable("this is not an order")),
        (0 | 1, _) => Err(unreadable("the token is not alone in the message; it was not taken")),
        _ => {
            Err(unreadable("the message holds several tokens; none was taken, send one at a time"))
        }
    }
}

/// Whether nothing but the token is in its text. Blanks separate it from the rest; a token that was
/// wrapped has them at the ends of its lines alone.
fn is_alone(text: &str) -> bool {
    hides_token(text) || !text.lines().any(|line| line.trim().contains(char::is_whitespace))
}

/// Whether a text is a token in the form of [`token_text`]. The wallet refuses one in capitals, with
/// its own reason.
fn is_token(text: &str) -> bool {
    let prefix = text.get(..6).map(str::to_ascii_lowercase);
    prefix.is_some_and(|prefix| matches!(prefix.as_str(), "cashua" | "cashub"))
}

fn unreadable(problem: &str) -> Refusal {
    Refusal::new(ErrorType::InvalidRequest, format!("{problem}; {EXAMPLE}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::limits;
    use paygress_core::model::order::Purchase;
    use paygress_core::testing::{TOKEN, forms_of_the_token};
    use std::time::{Duration, Instant};

    #[test]
    fn a_token_alone_is_an_order_of_the_default_pod() {
        for text in forms_of_the_token() {
            let Ok(Request::Buy {
                token: Some(token),
                purchase,
                password: Some(_),
                notices: false,
            }) = parse(&text)
            else {
                panic!("{text}")
            };
            assert_eq!(token.expose(), TOKEN, "{text}");
            assert!(
                matches!(purchase, Purchase::Spawn { image: None, tier: None, wanted: None, .. }),
                "{text}"
            );
        }
        assert!(parse(r#"{"cashu_token": "cashuBo2F0"}"#).is_ok());
        assert!(parse("CASHUBO2F0").is_ok(), "the wallet says what is wrong with it");
    }

    #[test]
    fn everything_else_is_answered_with_an_example() {
        for (text, problem) in [
            ("hi", "this is not an order"),
            ("", "this is not an order"),
            ("[1]", "this is not an order"),
            ("für Elise 🎹", "this is not an order"),
            ("https://wallet.example/", "this is not an order"),
            ("creqApWF0gaNhdGVub3N0cmFheKlucH", "this is not an order"),
            ("here: cashuBo2F0", "not alone"),
            ("cashuBo2F0 please", "not alone"),
            ("cashuBo2F0\u{a0}please", "not alone"),
            ("`cashuBo2F0` please", "not alone"),
            ("\"cashuBo2F0\nfor a pod\"", "not alone"),
            ("here: https://wallet.example/#token=cashuBo2F0", "not alone"),
            ("cashu Bo2F0", "not alone"),
            ("cashuBo2F0 cashuBo2F1", "several tokens"),
            ("cashuBo2F0\ncashuBo2F1", "several tokens"),
            ("cashu:cashuBo2F0 \"cashuBo2F1\"", "several tokens"),
            (
                "https://w.example/#token=cashuBab https://w.example/#token=cashuBcd",
                "several tokens",
            ),
        ] {
            let refusal = parse(text).unwrap_err();
            assert_eq!(refusal.code, ErrorType::InvalidRequest, "{text}");
            assert!(
                refusal.message.contains(problem) && refusal.message.contains("cashu_token"),
                "{text}: {refusal}"
            );
        }
    }

    #[test]
    fn the_largest_message_is_read_in_linear_time() {
        for unit in ["a ", "cashuB ", "`cashuB`\n", "%41 ", "https://token=", "\u{e0153} "] {
            let text = unit.repeat(limits::REQUEST_BYTES / unit.len());
            let started = Instant::now();
            assert!(parse(&text).is_err(), "{unit:?}");
            let took = started.elapsed();
            println!("{unit:?} x {}: {took:?}", text.len());
            assert!(took < Duration::from_secs(5), "{unit:?}: {took:?}");
        }
    }
}
