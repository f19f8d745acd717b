//! What commands print.
//!
//! A reader may go before everything is written, as in `paygress ledger list | head -1`: the rest is
//! dropped, and the command ends as it would have. `println!` would panic. SIGPIPE stays ignored: at
//! its default, a relay or a mint that closes its connection would end the process too.
//!
//! Much of it is text of services, mints and registries: no control sequence in it reaches the
//! terminal.

use paygress_core::sanitize::plain_lines;
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
    stdout.write_all(plain_lines(&text.to_string()).as_bytes())?;
    stdout.flush()
}

/// Prints a line to standard error. If nobody reads it, there is nobody to tell.
pub fn print_note(text: impl Display) {
    let _ = writeln!(stderr(), "{}", plain_lines(&text.to_string()));
}
