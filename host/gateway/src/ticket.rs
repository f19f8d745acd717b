//! Where the gateway's endpoint is: what customers get besides the name of their pod.

use crate::limits;
use iroh::EndpointAddr;
use iroh_tickets::endpoint::EndpointTicket;
use std::fmt;
use std::str::FromStr;

/// The id and the addresses of an endpoint, in the text form that iroh's own programs read. It holds
/// no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayTicket(EndpointTicket);

/// The text is no ticket.
#[derive(Debug, thiserror::Error)]
#[error("this is not a gateway's ticket: copy the text that begins with \"endpoint\" as a whole")]
pub struct TicketError(#[source] Option<iroh_tickets::ParseError>);

impl TicketError {
    /// Its code, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "ticket-invalid"
    }
}

impl GatewayTicket {
    pub(crate) fn new(addr: EndpointAddr) -> Self {
        Self(addr.into())
    }

    /// The endpoint's id, in hex: it stays when its addresses change.
    #[must_use]
    pub fn endpoint_id(&self) -> String {
        self.addr().id.to_string()
    }

    pub(crate) fn addr(&self) -> &EndpointAddr {
        self.0.endpoint_addr()
    }
}

impl FromStr for GatewayTicket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.len() > limits::TICKET_BYTES {
            return Err(TicketError(None));
        }
        text.trim().parse().map(Self).map_err(|error| TicketError(Some(error)))
    }
}

impl fmt::Display for GatewayTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iroh::SecretKey;

    #[test]
    fn a_ticket_is_read_as_it_was_written() {
        let id = SecretKey::from_bytes(&[7; 32]).public();
        let addr = EndpointAddr::new(id).with_ip_addr("192.0.2.7:4433".parse().unwrap());
        let ticket = GatewayTicket::new(addr);
        let text = ticket.to_string();
        assert!(text.starts_with("endpoint"), "{text}");
        assert_eq!(format!(" {text}\n").parse::<GatewayTicket>().unwrap(), ticket);
    }

    #[test]
    fn other_texts_are_no_tickets() {
        let long = format!("endpoint{}", "a".repeat(limits::TICKET_BYTES));
        for text in ["", "endpoint", "endpoint!", "nodeabc", "endpointabc", &long] {
            let error = text.parse::<GatewayTicket>().unwrap_err();
            assert_eq!(error.code(), "ticket-invalid", "{text}");
        }
    }
}
