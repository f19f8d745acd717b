//! The token that is pasted. It is never an argument or a variable, which other programs see.

use crate::output::print_note;
use paygress_core::limits::TOKEN_BYTES;
use paygress_core::model::secret::Secret;
use paygress_core::protocol::token_text;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, BufRead, IsTerminal, Read, Stdin};

/// What is read: a token in any form, a link for instance.
const INPUT_BYTES: u64 = 100_000;

/// Why there is no token to send.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("standard input cannot be read")]
    Input(#[source] io::Error),
    #[error("there is no token; paste one, or write it to standard input")]
    Missing,
    #[error("this is not a Cashu token, which begins with cashuA or cashuB; nothing was sent")]
    NotAToken,
    #[error(
        "the token is longer than {TOKEN_BYTES} bytes, and was not sent; make one of fewer, larger proofs"
    )]
    TooLong,
}

/// Reads a token from standard input. When it is dropped the terminal is as it was before.
pub(crate) async fn read_token() -> Result<Secret, TokenError> {
    let input = io::stdin();
    let text = match input.is_terminal() {
        true => read_line(&input).await,
        false => blocking(read_all).await,
    };
    check(text.map(Secret::new).map_err(TokenError::Input)?.expose())
}

fn read_all() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().take(INPUT_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

async fn read_line(input: &Stdin) -> io::Result<String> {
    // Not in the thread that reads: that one goes on reading, whatever ends the program.
    let _whole = WholeLines::begin(input)?;
    print_note("Paste a Cashu token and press Enter (it is not shown):");
    let read = || {
        let mut line = String::new();
        io::stdin().lock().take(INPUT_BYTES).read_line(&mut line)?;
        Ok(line)
    };
    blocking(read).await
}

/// Signals are waited for meanwhile.
async fn blocking(read: fn() -> io::Result<String>) -> io::Result<String> {
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

/// A terminal that gives lines of any length, until this is dropped. As they are, terminals cut
/// lines at 4095 bytes, and tokens are longer.
struct WholeLines<'a> {
    input: &'a Stdin,
    before: Termios,
}

impl<'a> WholeLines<'a> {
    fn begin(input: &'a Stdin) -> io::Result<Self> {
        let before = tcgetattr(input)?;
        let mut whole = before.clone();
        whole.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(input, OptionalActions::Now, &whole)?;
        Ok(Self { input, before })
    }
}

impl Drop for WholeLines<'_> {
    fn drop(&mut self) {
        // What was pasted after the first line is not typed into the shell.
        let _ = tcsetattr(self.input, OptionalActions::Flush, &self.before);
    }
}

/// The token in this text, if it looks like one: the mint's part is for the service to check.
fn check(text: &str) -> Result<Secret, TokenError> {
    let token = token_text(text);
    if token.expose().is_empty() {
        return Err(TokenError::Missing);
    }
    if token.expose().len() > TOKEN_BYTES {
        return Err(TokenError::TooLong);
    }
    let content = ["cashuA", "cashuB"].iter().find_map(|it| token.expose().strip_prefix(it));
    let is_symbol = |c: u8| c.is_ascii_alphanumeric() || b"-_=".contains(&c);
    match content.is_some_and(|text| !text.is_empty() && text.bytes().all(is_symbol)) {
        true => Ok(token),
        false => Err(TokenError::NotAToken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::testing::{TOKEN, forms_of_the_token};

    #[test]
    fn a_token_is_read_in_every_form_and_nothing_else_is_sent() {
        for text in forms_of_the_token() {
            assert_eq!(check(&text).unwrap().expose(), TOKEN, "{text}");
        }
        assert!(matches!(check(" \n"), Err(TokenError::Missing)));
        for text in ["cashuB", "cashuCabc", "creqAabc", "cashuBab!", "npub1abc", "CASHUBabc"] {
            assert!(matches!(check(text), Err(TokenError::NotAToken)), "{text}");
        }
        let long = format!("cashuB{}", "a".repeat(TOKEN_BYTES));
        assert!(matches!(check(&long), Err(TokenError::TooLong)));
    }
}
