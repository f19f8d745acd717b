//! How many responses that nobody has paid for are sent, and wait for that.

use crate::limits;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The responses that are being delivered and that nobody has paid for.
pub(super) struct UnpaidDeliveries {
    places: Semaphore,
    sending: Semaphore,
}

impl Default for UnpaidDeliveries {
    fn default() -> Self {
        Self {
            places: Semaphore::new(limits::DELIVERIES_WAITING),
            sending: Semaphore::new(limits::DELIVERIES_AT_ONCE),
        }
    }
}

impl UnpaidDeliveries {
    /// Whether one more would not be delivered now.
    pub(super) fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }

    pub(super) fn claim(&self) -> Option<DeliveryPlace<'_>> {
        let place = self.places.try_acquire().ok()?;
        Some(DeliveryPlace { sending: &self.sending, _place: place })
    }
}

/// The place of one response among those, until it is dropped.
pub(super) struct DeliveryPlace<'a> {
    sending: &'a Semaphore,
    _place: SemaphorePermit<'a>,
}

impl DeliveryPlace<'_> {
    /// Waits until the response may be sent, for one attempt.
    pub(super) async fn acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.sending.acquire().await.ok()
    }
}
