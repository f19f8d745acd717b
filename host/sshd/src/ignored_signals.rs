//! Signals that this process was started to ignore, as a shell does for what it runs in the
//! background, and `nohup`.
//!
//! Programs of a session would ignore them too: an interrupt from the client's terminal would do
//! nothing. OpenSSH's server handles these signals, and so its sessions begin with the defaults.

use std::io;
use tokio::signal::unix::{SignalKind, signal};

const INHERITED: [SignalKind; 3] =
    [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()];

/// Lets the programs that are started from now on have the defaults. Here such a signal still does
/// nothing: what has a handler is reset when a program starts, what is ignored is not.
pub(crate) fn keep_from_sessions() -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    for kind in INHERITED {
        if is_ignored(&status, kind) {
            // The handler stays.
            drop(signal(kind)?);
        }
    }
    Ok(())
}

fn is_ignored(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let bit = u32::try_from(kind.as_raw_value().saturating_sub(1)).ok();
    bit.and_then(|bit| mask.checked_shr(bit)).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_has_a_bit_for_each_signal_that_is_ignored() {
        let of = |mask: &str| {
            let status = format!("SigCgt:\tffffffffffffffff\nSigIgn:\t{mask}\n");
            INHERITED.map(|kind| is_ignored(&status, kind))
        };
        assert_eq!(of("0000000000000000"), [false; 3]);
        assert_eq!(of("0000000000000006"), [false, true, true]);
        assert_eq!(of("0000000000001001"), [true, false, false]);
        assert_eq!(of("none"), [false; 3]);
    }
}
