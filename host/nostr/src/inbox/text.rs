//! What a message's text asks for: JSON as a client writes it, or a token as a person sends it.

use paygress_core::model::refusal::{ErrorType, Refusal};
use paygress_core::protocol::{Request, RequestBody, sorted};

const EXAMPLE: &str = r#"send JSON such as {"cashu_token": "cashuB…"}, or the token alone for the default pod; {"pod_name": "…", "cashu_token": "cashuB…"} extends a pod"#;

/// Reads a request. A token alone is an order of the default pod: every other field of one may be
/// left out, so that it cannot mean anything else.
///
/// # Errors
/// The refusal that says what to send.
pub(super) fn parse(text: &str) -> Result<Request, Refusal> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with('{') {
        return Request::parse(text);
    }
    let tokens = text.split_whitespace().filter(|word| is_token(word)).count();
    // A token that was wrapped has line breaks, and no other blanks.
    let is_one_word = !text.contains([' ', '\t']);
    match tokens {
        1 if is_token(text) && is_one_word => {
            let body = RequestBody { cashu_token: Some(text.to_owned()), ..RequestBody::default() };
            Request::parse(&sorted(&body).to_string())
        }
        0 => Err(unreadable("this is not an order")),
        1 => Err(unreadable("the token is not alone in the message; it was not taken")),
        _ => {
            Err(unreadable("the message holds several tokens; none was taken, send one at a time"))
        }
    }
}

fn is_token(word: &str) -> bool {
    let word = word.trim_start_matches("web+");
    let prefix = word.get(..6).map(str::to_ascii_lowercase);
    prefix.is_some_and(|prefix| matches!(prefix.as_str(), "cashua" | "cashub" | "cashu:"))
}

fn unreadable(problem: &str) -> Refusal {
    Refusal::new(ErrorType::InvalidRequest, format!("{problem}; {EXAMPLE}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::model::order::Purchase;

    #[test]
    fn a_token_alone_is_an_order_of_the_default_pod() {
        for text in ["cashuBo2F0", " cashuAeyJ0\n", "cashu:cashuBo2F0", "\u{feff}cashuBo2F0"] {
            let Ok(Request::Buy { token: Some(token), purchase, password: Some(_) }) = parse(text)
            else {
                panic!("{text}")
            };
            let plain = text.trim_start_matches('\u{feff}').trim().trim_start_matches("cashu:");
            assert_eq!(token.expose(), plain);
            assert!(
                matches!(purchase, Purchase::Spawn { image: None, tier: None, wanted: None, .. }),
                "{text}"
            );
        }
        assert!(parse(r#"{"cashu_token": "cashuBo2F0"}"#).is_ok());
    }

    #[test]
    fn everything_else_is_answered_with_an_example() {
        for (text, problem) in [
            ("hi", "this is not an order"),
            ("", "this is not an order"),
            ("[1]", "this is not an order"),
            ("für Elise 🎹", "this is not an order"),
            ("here: cashuBo2F0", "not alone"),
            ("cashuBo2F0 please", "not alone"),
            ("cashuBo2F0 cashuBo2F1", "several tokens"),
            ("cashuBo2F0\ncashuBo2F1", "several tokens"),
        ] {
            let refusal = parse(text).unwrap_err();
            assert_eq!(refusal.code, ErrorType::InvalidRequest, "{text}");
            assert!(
                refusal.message.contains(problem) && refusal.message.contains("cashu_token"),
                "{text}: {refusal}"
            );
        }
    }
}
