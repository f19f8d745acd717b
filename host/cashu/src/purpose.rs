//! What an operation is for. The wallet stores it as text, and the audit matches it with orders.

use paygress_core::model::ids::OrderId;
use std::fmt;
use std::str::FromStr;

/// What an operation is for. It is an idempotency key: at most one operation of a purpose succeeds,
/// [`Purpose::Restore`] and [`Purpose::WriteOff`] excepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// To receive the token of an order.
    Receive { order: OrderId },
    /// To make the refund token of an order.
    Refund { order: OrderId },
    /// To reclaim the refund token of an order, which was not redeemed. Stored as `sweep`.
    Reclaim { order: OrderId },
    /// To make a token for the operator.
    Send { id: SendId },
    /// To pay a Lightning invoice for the operator. Stored as `pay`.
    Melt { payment_hash: PaymentHash },
    /// To swap proofs of a keyset that ends.
    Rotate { id: RotationId },
    /// To add unspent proofs that were restored from the mnemonic.
    Restore,
    /// To remove proofs that another program has spent.
    WriteOff,
}

/// A token that the operator made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendId(String);

/// A swap of proofs whose keyset ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RotationId(String);

/// The payment hash of a Lightning invoice, in hex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentHash(String);

/// A stored purpose that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown purpose {0:?}")]
pub struct UnknownPurpose(String);

/// An id that is made at random, and shown as it is stored.
macro_rules! random_id {
    ($($name:ident),*) => {$(
        impl $name {
            #[must_use]
            pub fn random() -> Self {
                Self(OrderId::random().to_string())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
random_id!(SendId, RotationId);

impl PaymentHash {
    pub(crate) fn of(invoice: &cdk::lightning_invoice::Bolt11Invoice) -> Self {
        Self(invoice.payment_hash().to_string())
    }
}

impl fmt::Display for PaymentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receive { order } => write!(f, "receive {order}"),
            Self::Refund { order } => write!(f, "refund {order}"),
            Self::Reclaim { order } => write!(f, "sweep {order}"),
            Self::Send { id } => write!(f, "send {id}"),
            Self::Melt { payment_hash } => write!(f, "pay {payment_hash}"),
            Self::Rotate { id } => write!(f, "rotate {id}"),
            Self::Restore => f.write_str("restore"),
            Self::WriteOff => f.write_str("written off"),
        }
    }
}

impl FromStr for Purpose {
    type Err = UnknownPurpose;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownPurpose(text.to_owned());
        match text {
            "restore" => return Ok(Self::Restore),
            "written off" => return Ok(Self::WriteOff),
            _ => {}
        }
        let (kind, id) = text.split_once(' ').ok_or_else(unknown)?;
        if id.is_empty() || id.contains(char::is_whitespace) {
            return Err(unknown());
        }
        let order = || OrderId::parse(id).map_err(|_| unknown());
        match kind {
            "receive" => Ok(Self::Receive { order: order()? }),
            "refund" => Ok(Self::Refund { order: order()? }),
            "sweep" => Ok(Self::Reclaim { order: order()? }),
            "send" => Ok(Self::Send { id: SendId(id.to_owned()) }),
            "rotate" => Ok(Self::Rotate { id: RotationId(id.to_owned()) }),
            "pay" if id.len() == 64 && id.bytes().all(|c| c.is_ascii_hexdigit()) => {
                Ok(Self::Melt { payment_hash: PaymentHash(id.to_owned()) })
            }
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stored forms of the first version, and of a later one: `rotate`.
    #[test]
    fn every_stored_form_is_read_and_written_unchanged() {
        let order = OrderId::parse("01890a5d0b3c4e7f").unwrap();
        let hash = "0f".repeat(32);
        for (text, purpose) in [
            ("receive 01890a5d0b3c4e7f".to_owned(), Purpose::Receive { order: order.clone() }),
            ("refund 01890a5d0b3c4e7f".to_owned(), Purpose::Refund { order: order.clone() }),
            ("sweep 01890a5d0b3c4e7f".to_owned(), Purpose::Reclaim { order }),
            (
                "send 01890a5d0b3c4e7f".to_owned(),
                Purpose::Send { id: SendId("01890a5d0b3c4e7f".into()) },
            ),
            (
                "rotate 01890a5d0b3c4e7f".to_owned(),
                Purpose::Rotate { id: RotationId("01890a5d0b3c4e7f".into()) },
            ),
            (format!("pay {hash}"), Purpose::Melt { payment_hash: PaymentHash(hash) }),
            ("restore".to_owned(), Purpose::Restore),
            ("written off".to_owned(), Purpose::WriteOff),
        ] {
            assert_eq!(purpose.to_string(), text);
            assert_eq!(text.parse(), Ok(purpose));
        }
    }

    #[test]
    fn generated_ids_are_read_back() {
        for purpose in [
            Purpose::Receive { order: OrderId::random() },
            Purpose::Refund { order: OrderId::random() },
            Purpose::Reclaim { order: OrderId::random() },
            Purpose::Send { id: SendId::random() },
            Purpose::Rotate { id: RotationId::random() },
        ] {
            assert_eq!(purpose.to_string().parse(), Ok(purpose));
        }
    }

    #[test]
    fn other_texts_are_not_purposes() {
        for text in
            ["", "receive", "receive ", "receive a b", "restore x", "pay 0f", "written", "give 1"]
        {
            assert_eq!(text.parse::<Purpose>(), Err(UnknownPurpose(text.to_owned())), "{text}");
        }
    }
}
