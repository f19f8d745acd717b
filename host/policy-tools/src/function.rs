//! The functions of the contract.

use paygress_core::backend::policy::Slot;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Function {
    Admit,
    Catalog,
    Offers,
    Quote,
    Grant,
    Refund,
    Render,
}

impl Function {
    /// The function that decides orders in a slot.
    #[must_use]
    pub fn main_of(slot: Slot) -> Self {
        match slot {
            Slot::Images => Self::Admit,
            Slot::Pricing => Self::Quote,
            Slot::Duration => Self::Grant,
            Slot::PodTemplate => Self::Render,
        }
    }

    /// The slot's other function, if it has one.
    #[must_use]
    pub fn other_of(slot: Slot) -> Option<Self> {
        match slot {
            Slot::Images => Some(Self::Catalog),
            Slot::Pricing => Some(Self::Offers),
            Slot::Duration => Some(Self::Refund),
            Slot::PodTemplate => None,
        }
    }

    #[must_use]
    pub fn slot(self) -> Slot {
        match self {
            Self::Admit | Self::Catalog => Slot::Images,
            Self::Offers | Self::Quote => Slot::Pricing,
            Self::Grant | Self::Refund => Slot::Duration,
            Self::Render => Slot::PodTemplate,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Catalog => "catalog",
            Self::Offers => "offers",
            Self::Quote => "quote",
            Self::Grant => "grant",
            Self::Refund => "refund",
            Self::Render => "render",
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
