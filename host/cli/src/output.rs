//! What commands print, and errors for people.
//!
//! A reader may go before everything is written, as in `paygress ledger list | head -1`: the rest is
//! dropped, and the command ends as it would have. `println!` would panic. SIGPIPE stays ignored: at
//! its default, a relay or a mint that closes its connection would end the process too.

use std::fmt::Display;
use std::io::{ErrorKind, Result, Write, stderr, stdout};

/// Prints a line to standard output.
pub fn print_line(text: impl Display) {
    print(format_args!("{text}\n"));
}

/// Prints to standard output.
pub fn print(text: impl Display) {
    match try_print(text) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        // A full disk, for instance.
        Err(error) => {
            print_note(format_args!("paygress: standard output cannot be written: {error}"));
            std::process::exit(1);
        }
    }
}

/// Prints to standard output, for commands that end when its reader has gone.
///
/// # Errors
/// [`ErrorKind::BrokenPipe`]: the reader has gone.
pub fn try_print(text: impl Display) -> Result<()> {
    let mut stdout = stdout().lock();
    write!(stdout, "{text}")?;
    stdout.flush()
}

/// Prints a line to standard error. If nobody reads it, there is nobody to tell.
pub fn print_note(text: impl Display) {
    let _ = writeln!(stderr(), "{text}");
}

/// The error and its causes in one line. A cause that the text before it contains already is left
/// out.
#[must_use]
pub fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn each_cause_is_printed_once() {
        let error = anyhow!("refused").context("connecting failed (refused)").context("no relay");
        assert_eq!(with_causes(&error), "no relay: connecting failed (refused)");
        let error = anyhow!("no such file").context("x.toml cannot be read");
        assert_eq!(with_causes(&error), "x.toml cannot be read: no such file");
        assert_eq!(with_causes(&anyhow!("alone")), "alone");
    }
}
