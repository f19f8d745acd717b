//! What a transition of an order does to a lease.

use crate::db::{Transaction, Value};
use crate::ports::{lock, release};
use crate::rows::{SELECT_LEASES, read_lease, write_lease};
use crate::sql_store::Result;
use paygress_core::backend::store::LeaseUpdate;
use paygress_core::model::ids::{LeaseId, PodName};
use paygress_core::model::order::{Lease, LeaseState};
use paygress_core::model::units::{Seconds, UnixTime};

pub(crate) fn find_lease(
    transaction: &mut dyn Transaction,
    pod: &PodName,
) -> Result<Option<Lease>> {
    let statement = format!("{SELECT_LEASES} WHERE pod = ?1");
    transaction.first(&statement, &[Value::from(pod.as_str())])?.map(read_lease).transpose()
}

/// Changes a lease that has not ended.
fn change(
    transaction: &mut dyn Transaction,
    pod: &PodName,
    change: impl FnOnce(&mut Lease),
) -> Result<()> {
    match find_lease(transaction, pod)? {
        Some(mut lease) if lease.state != LeaseState::Ended => {
            change(&mut lease);
            write_lease(transaction, &lease)
        }
        _ => Ok(()),
    }
}

/// A [`LeaseUpdate`] that the thread of the transaction can own.
#[derive(Clone)]
pub(crate) enum OwnedLeaseUpdate {
    Keep,
    Require(PodName),
    Put(Box<Lease>),
    Release(LeaseId, Option<Box<Lease>>),
    Extend(PodName, Seconds),
    Shorten(PodName, Seconds),
}

impl From<LeaseUpdate<'_>> for OwnedLeaseUpdate {
    fn from(update: LeaseUpdate<'_>) -> Self {
        match update {
            LeaseUpdate::Keep => Self::Keep,
            LeaseUpdate::Require(pod) => Self::Require(pod.clone()),
            LeaseUpdate::Put(lease) => Self::Put(Box::new(lease.clone())),
            LeaseUpdate::Release(id, lease) => {
                Self::Release(id.clone(), lease.map(|lease| Box::new(lease.clone())))
            }
            LeaseUpdate::Extend(pod, by) => Self::Extend(pod.clone(), by),
            LeaseUpdate::Shorten(pod, by) => Self::Shorten(pod.clone(), by),
        }
    }
}

impl OwnedLeaseUpdate {
    /// Must come first in its transaction.
    pub(crate) fn lock(&self, transaction: &mut dyn Transaction) -> Result<()> {
        match self {
            Self::Release(..) => lock(transaction),
            _ => Ok(()),
        }
    }

    /// Whether the transition may be made.
    pub(crate) fn is_allowed(&self, transaction: &mut dyn Transaction) -> Result<bool> {
        let Self::Require(pod) = self else { return Ok(true) };
        let lease = find_lease(transaction, pod)?;
        Ok(lease.is_some_and(|lease| lease.state != LeaseState::Ended))
    }

    pub(crate) fn write(&self, transaction: &mut dyn Transaction) -> Result<()> {
        match self {
            Self::Keep | Self::Require(_) => Ok(()),
            Self::Put(lease) => write_lease(transaction, lease),
            Self::Release(id, lease) => {
                release(transaction, id)?;
                match lease {
                    Some(lease) => write_lease(transaction, lease),
                    None => Ok(()),
                }
            }
            Self::Extend(pod, by) => change(transaction, pod, |lease| {
                lease.expires_at = lease.expires_at.map(|end| end.after(*by));
                lease.noticed_at = Some(UnixTime::now());
            }),
            Self::Shorten(pod, by) => change(transaction, pod, |lease| {
                lease.expires_at = lease.expires_at.map(|end| end.minus(*by));
            }),
        }
    }
}
