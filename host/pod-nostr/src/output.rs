//! What the program prints. Much of it is text of services: no control sequence in it reaches the
//! terminal.

use paygress_core::sanitize::plain_lines;
use std::fmt::Display;
use std::io::{Write, stderr, stdout};

/// To standard output. If nobody reads it, the record has it too.
pub(crate) fn print_line(text: impl Display) {
    let _ = writeln!(stdout(), "{}", plain_lines(&text.to_string()));
}

/// To standard error.
pub(crate) fn print_note(text: impl Display) {
    let _ = writeln!(stderr(), "{}", plain_lines(&text.to_string()));
}
