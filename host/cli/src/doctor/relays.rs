//! Our relays.

use super::report::{Area, Check, Group};
use crate::config::Config;
use paygress_core::error_chain;
use paygress_nostr::{ReadBack, RelayReport, RelayUrl, check_relay};

pub(super) const RELAY: Area = Area::new(Group::Relays, "relay");

/// A request with a token of many proofs, wrapped twice.
const NEEDED_BYTES: u64 = 32 << 10;

const ANOTHER: &str =
    "ask its operator whether it serves your key, or name another one in NOSTR_RELAYS";

pub(super) async fn checks(config: &Config, relay: &RelayUrl) -> Vec<Check> {
    match check_relay(&config.keys, relay).await {
        Ok(report) => reported(relay, &report),
        Err(error) => vec![RELAY.fail(format!("{relay}: {}", error_chain(&error)), ANOTHER)],
    }
}

fn reported(relay: &RelayUrl, report: &RelayReport) -> Vec<Check> {
    let mut wrong = Vec::new();
    if let Err(error) = &report.written {
        wrong.push(
            RELAY.fail(format!("{relay}: takes no message: {}", error_chain(error)), ANOTHER),
        );
    }
    if let Err(error) = &report.inbox {
        let text = format!("{relay}: does not let the inbox be read: {}", error_chain(error));
        wrong.push(RELAY.fail(text, ANOTHER));
    }
    match &report.read_back {
        None | Some(Ok(ReadBack::Same)) => {}
        Some(Ok(ReadBack::Nothing)) => wrong.push(RELAY.warn(
            format!("{relay}: has taken a message, and does not give it to its receiver"),
            "customers may not get answers through it; name another one beside it",
        )),
        Some(Err(error)) => wrong.push(RELAY.warn(
            format!("{relay}: does not let a receiver read: {}", error_chain(error)),
            "customers may not get answers through it; name another one beside it",
        )),
    }
    if let Some(most) = report.max_message_bytes.filter(|most| *most < NEEDED_BYTES) {
        wrong.push(RELAY.warn(
            format!("{relay}: takes no message of more than {most} bytes"),
            "orders with tokens of many proofs do not come through; name another one beside it",
        ));
    }
    if wrong.is_empty() {
        let authentication = if report.authenticated { ", after authentication" } else { "" };
        let text = format!("{relay}: takes messages and gives them back{authentication}");
        wrong.push(RELAY.ok(text));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;
    use paygress_nostr::Error;

    fn report() -> RelayReport {
        let read_back = Some(Ok(ReadBack::Same));
        let (written, inbox) = (Ok(()), Ok(()));
        RelayReport { written, inbox, read_back, authenticated: false, max_message_bytes: None }
    }

    /// The only line about this relay.
    fn shown(report: &RelayReport) -> Check {
        let relay = RelayUrl::parse("wss://relay.example").unwrap();
        let [check] = <[Check; 1]>::try_from(reported(&relay, report)).unwrap();
        assert!(check.text.starts_with("wss://relay.example"), "{check:?}");
        check
    }

    #[test]
    fn a_relay_that_takes_small_messages_only_is_a_warning() {
        for (most, outcome) in [
            (None, Outcome::Ok),
            (Some(NEEDED_BYTES), Outcome::Ok),
            (Some(NEEDED_BYTES - 1), Outcome::Warn),
            (Some(0), Outcome::Warn),
        ] {
            let check = shown(&RelayReport { max_message_bytes: most, ..report() });
            assert_eq!(check.outcome, outcome, "{check:?}");
            assert_eq!(check.remedy.is_some(), outcome != Outcome::Ok, "{check:?}");
            assert!(outcome == Outcome::Ok || check.text.contains("takes no message of more than"));
        }
    }

    #[test]
    fn what_a_relay_does_not_do_is_named() {
        let mut authenticated = report();
        authenticated.authenticated = true;
        let (closed, nothing) = (|| Err(Error::Closed), Some(Ok(ReadBack::Nothing)));
        for (report, outcome, part) in [
            (authenticated, Outcome::Ok, "after authentication"),
            (
                RelayReport { written: closed(), read_back: None, ..report() },
                Outcome::Fail,
                "no message",
            ),
            (RelayReport { inbox: closed(), ..report() }, Outcome::Fail, "inbox"),
            (RelayReport { read_back: nothing, ..report() }, Outcome::Warn, "to its receiver"),
            (
                RelayReport { read_back: Some(Err(Error::Closed)), ..report() },
                Outcome::Warn,
                "a receiver",
            ),
        ] {
            let check = shown(&report);
            assert_eq!(check.outcome, outcome, "{check:?}");
            assert!(check.text.contains(part), "{check:?}");
        }
    }
}
