//! Whether the operator sells.

use crate::model::order::Purchase;
use crate::model::refusal::{ErrorType, Refusal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is sold, by the operator's decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sales {
    /// New pods, and more time for those that run.
    #[default]
    Open,
    /// More time only.
    Paused,
    /// Nothing: the pods that run end with what was bought.
    Draining,
}

impl Sales {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Paused, Self::Draining];

    /// Its name, as it is stored and sent.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Draining => "draining",
        }
    }

    /// That of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sales| sales.as_str() == name)
    }

    /// Whether this is sold.
    ///
    /// # Errors
    /// `resource_unavailable`.
    pub fn check(self, purchase: &Purchase) -> Result<(), Refusal> {
        match (self, purchase) {
            (Self::Open, _) | (Self::Paused, Purchase::TopUp { .. }) => Ok(()),
            (Self::Paused | Self::Draining, Purchase::Spawn { .. }) => Err(refusal(
                "the operator sells no new pods at the moment; your token was not taken, try again later",
            )),
            (Self::Draining, Purchase::TopUp { .. }) => Err(refusal(
                "the operator sells no more time at the moment; your token was not taken, and the pod runs until its end",
            )),
        }
    }

    /// What the operator's views say while not everything is sold.
    #[must_use]
    pub fn warning(self) -> Option<&'static str> {
        match self {
            Self::Open => None,
            Self::Paused => Some("sales are paused: orders for new pods are refused"),
            Self::Draining => Some("the service is draining: all orders are refused"),
        }
    }
}

fn refusal(message: &str) -> Refusal {
    Refusal::new(ErrorType::ResourceUnavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{LeaseId, OrderId};
    use crate::testing;

    #[test]
    fn what_is_sold_follows_from_the_state() {
        let top_up = Purchase::TopUp { pod: LeaseId::of(&OrderId::random()).pod_name() };
        for (sales, spawn, more) in [
            (Sales::Open, true, true),
            (Sales::Paused, false, true),
            (Sales::Draining, false, false),
        ] {
            assert_eq!(sales.check(&testing::spawn()).is_ok(), spawn, "{sales:?}");
            assert_eq!(sales.check(&top_up).is_ok(), more, "{sales:?}");
            assert_eq!(sales.warning().is_none(), sales == Sales::Open);
            assert_eq!(serde_json::to_value(sales).unwrap(), sales.as_str());
            assert_eq!(Sales::parse(sales.as_str()), Some(sales));
        }
        assert_eq!(Sales::parse("closed"), None, "that of a later version is not read as open");
    }
}
