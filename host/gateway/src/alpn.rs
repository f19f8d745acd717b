//! The protocol that a client of iroh names: `paygress/ssh/1/POD`.
//!
//! It is readable on the way, so it has no secret: the SSH server of the pod authenticates the
//! customer. `dumbpipe connect --custom-alpn utf8:paygress/ssh/1/POD TICKET` speaks it too: with a
//! protocol of one's own it sends no greeting before the bytes of its standard input.

use crate::shared::Shared;
use paygress_core::model::ids::PodName;

/// What a client gets to choose from if it names no live lease: nothing that it has offered.
pub(crate) const BARE: &[u8] = b"paygress/ssh/1";

/// What stands before the name of the pod.
pub const PREFIX: &str = "paygress/ssh/1/";

/// The protocol of this pod's SSH port.
pub(crate) fn of_pod(pod: &PodName) -> Vec<u8> {
    format!("{PREFIX}{pod}").into_bytes()
}

/// The pod whose SSH port a protocol is.
pub(crate) fn pod(alpn: &[u8]) -> Option<PodName> {
    Shared::pod_name(std::str::from_utf8(alpn).ok()?.strip_prefix(PREFIX)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_names_a_pod() {
        let name = PodName::parse("ssh-pod-abcdefg234").unwrap();
        assert_eq!(of_pod(&name), b"paygress/ssh/1/ssh-pod-abcdefg234");
        assert_eq!(pod(&of_pod(&name)), Some(name));
        let long = "a".repeat(200);
        for other in [
            "paygress/ssh/1",
            "paygress/ssh/1/",
            "paygress/ssh/1/abcdefg234",
            "paygress/ssh/1/ssh-pod-other",
            "paygress/ssh/2/ssh-pod-abcdefg234",
            "DUMBPIPEV0",
            &format!("paygress/ssh/1/ssh-pod-{long}"),
        ] {
            assert_eq!(pod(other.as_bytes()), None, "{other}");
        }
        assert_eq!(pod(b"paygress/ssh/1/ssh-pod-\xff\xff"), None);
    }
}
