//! Whether the images that customers name start here, as far as that is known.
//!
//! A pod of an image that never starts has a place until that is known, and at a mint without fees
//! its customer gets back all that they paid. So an image that its node could not pull or start is
//! refused before the payment for a while, and of those that have not started yet few are launched at
//! the same time. What is known is of this process: others find out for themselves.

use crate::backend::cluster::EndReason;
use crate::keyed_limit::{KeyedLimit, Permit};
use crate::limits;
use crate::model::ids::{Customer, OrderId};
use crate::model::refusal::{ErrorType, Refusal};
use crate::recent::Recent;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) struct ImageStarts {
    /// Those that have started.
    started: Mutex<Recent<String>>,
    failures: Mutex<HashMap<String, Failure>>,
    /// The orders whose image has not started yet.
    first: Mutex<HashMap<OrderId, FirstStart>>,
    images: KeyedLimit<String>,
    customers: KeyedLimit<Option<Customer>>,
}

/// The latest failure of an image.
#[derive(Clone, Copy)]
struct Failure {
    at: Instant,
    /// For how long it is refused.
    kept: Duration,
}

impl Failure {
    fn left(self, now: Instant) -> Duration {
        self.kept.saturating_sub(now.saturating_duration_since(self.at))
    }
}

/// What an order has of what may be tried at the same time.
struct FirstStart {
    _of_image: Permit<String>,
    _of_customer: Permit<Option<Customer>>,
}

/// An order that is worked on: when it is dropped, its image is not tried any more.
pub(super) struct Trying {
    starts: Arc<ImageStarts>,
    order: OrderId,
}

impl Drop for Trying {
    fn drop(&mut self) {
        lock(&self.starts.first).remove(&self.order);
    }
}

impl Default for ImageStarts {
    fn default() -> Self {
        let (most, kept) = (limits::IMAGES_KNOWN, limits::IMAGE_STARTED_KEPT);
        Self {
            started: Mutex::new(Recent::new(most, kept)),
            failures: Mutex::default(),
            first: Mutex::default(),
            images: KeyedLimit::default(),
            customers: KeyedLimit::default(),
        }
    }
}

impl ImageStarts {
    /// Ends what [`ImageStarts::try_start`] has claimed for this order.
    pub(super) fn trying(self: &Arc<Self>, order: &OrderId) -> Trying {
        Trying { starts: Arc::clone(self), order: order.clone() }
    }

    /// Before an order of this image is paid for.
    ///
    /// # Errors
    /// `resource_unavailable`: it has failed a moment ago, or has not started yet, and enough such
    /// pods are being launched.
    pub(super) fn try_start(
        &self,
        order: &OrderId,
        image: &str,
        customer: Option<&Customer>,
        capacity: u32,
    ) -> Result<(), Refusal> {
        self.check(image, Instant::now())?;
        let image = image.to_owned();
        if lock(&self.started).contains(&image) {
            return Ok(());
        }
        let mut first = lock(&self.first);
        if first.contains_key(order) {
            return Ok(());
        }
        let part = usize::try_from(capacity.div_ceil(limits::FIRST_STARTS_PART)).unwrap_or(0);
        if first.len() >= part.clamp(1, limits::FIRST_STARTS) {
            return Err(being_tried());
        }
        let of_image = self.images.try_acquire(image, limits::FIRST_STARTS_OF_IMAGE);
        let customer = customer.cloned();
        let of_customer = self.customers.try_acquire(customer, limits::FIRST_STARTS_OF_ONE);
        let (Some(of_image), Some(of_customer)) = (of_image, of_customer) else {
            return Err(being_tried());
        };
        let start = FirstStart { _of_image: of_image, _of_customer: of_customer };
        first.insert(order.clone(), start);
        Ok(())
    }

    /// Refuses an image that has failed a moment ago.
    pub(super) fn check(&self, image: &str, now: Instant) -> Result<(), Refusal> {
        let failures = lock(&self.failures);
        let left = failures.get(image).map_or(Duration::ZERO, |failure| failure.left(now));
        if left.is_zero() {
            return Ok(());
        }
        let seconds = left.as_secs().max(1);
        let message = format!(
            "this image did not start here a moment ago: its node could not pull it, or not start \
             it; correct it and try again in {seconds} s, or choose another"
        );
        Err(Refusal::new(ErrorType::ResourceUnavailable, message)
            .with_details("your token was not taken")
            .with_end_reason(EndReason::ImageFailed))
    }

    /// A pod of it takes logins.
    pub(super) fn started(&self, image: &str) {
        lock(&self.failures).remove(image);
        lock(&self.started).insert(&image.to_owned());
    }

    /// Its node could not pull or start it: each time in a row it is refused for twice as long.
    pub(super) fn failed(&self, image: &str, now: Instant) {
        self.forget(image);
        let mut failures = lock(&self.failures);
        // Long after the last one it is the first again.
        failures.retain(|_, failure| {
            now.saturating_duration_since(failure.at)
                < failure.kept.saturating_add(limits::IMAGE_FAILED_LONGEST)
        });
        let kept = failures
            .get(image)
            .map_or(limits::IMAGE_FAILED_FIRST, |failure| failure.kept.saturating_mul(2))
            .min(limits::IMAGE_FAILED_LONGEST);
        if failures.len() >= limits::IMAGES_KNOWN && !failures.contains_key(image) {
            let oldest = failures.iter().min_by_key(|(_, failure)| failure.at);
            if let Some(oldest) = oldest.map(|(image, _)| image.clone()) {
                failures.remove(&oldest);
            }
        }
        failures.insert(image.to_owned(), Failure { at: now, kept });
    }

    /// A pod of it did not start, for whatever reason: it counts as one that has not started yet.
    pub(super) fn forget(&self, image: &str) {
        lock(&self.started).remove(&image.to_owned());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn being_tried() -> Refusal {
    Refusal::new(
        ErrorType::ResourceUnavailable,
        "this image has not started here yet, and as many such pods as may be are being started; \
         try again in a minute, or choose another image",
    )
    .with_details("your token was not taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: u32 = 1_000;

    fn customer(number: usize) -> Customer {
        Customer::parse(&format!("{number:064x}")).unwrap()
    }

    fn try_start(starts: &ImageStarts, image: &str, of: usize) -> Result<OrderId, Refusal> {
        let order = OrderId::random();
        starts.try_start(&order, image, Some(&customer(of)), PLENTY).map(|()| order)
    }

    #[test]
    fn an_image_that_fails_is_refused_for_longer_and_longer_until_it_starts() {
        let (starts, mut now) = (ImageStarts::default(), Instant::now());
        for expected in [60, 120, 240, 480, 900, 900] {
            assert_eq!(starts.check("a", now), Ok(()), "{expected}");
            starts.failed("a", now);
            let refused = starts.check("a", now).unwrap_err();
            assert_eq!(refused.code, ErrorType::ResourceUnavailable);
            assert_eq!(refused.end_reason, Some(EndReason::ImageFailed));
            assert!(refused.message.contains(&format!("in {expected} s")), "{refused}");
            assert_eq!(starts.check("b", now), Ok(()), "another image");
            now = now.checked_add(Duration::from_secs(expected)).unwrap();
        }
        starts.failed("a", now);
        starts.started("a");
        assert_eq!(starts.check("a", now), Ok(()));
        starts.failed("a", now);
        assert!(starts.check("a", now).unwrap_err().message.contains("in 60 s"));
    }

    #[test]
    fn no_more_failures_are_kept_than_may_be_the_newest() {
        let (starts, begun) = (ImageStarts::default(), Instant::now());
        let times = 0..limits::IMAGES_KNOWN.saturating_mul(2);
        let last = times.end.saturating_sub(1);
        let mut now = begun;
        for number in times {
            now = now.checked_add(Duration::from_millis(1)).unwrap();
            starts.failed(&number.to_string(), now);
        }
        assert_eq!(lock(&starts.failures).len(), limits::IMAGES_KNOWN);
        assert!(starts.check(&last.to_string(), now).is_err());
        assert!(starts.check("0", now).is_ok());
    }

    #[test]
    fn few_pods_of_images_that_have_not_started_yet_are_launched_at_the_same_time() {
        // Of one image…
        let starts = Arc::new(ImageStarts::default());
        for of in 0..limits::FIRST_STARTS_OF_IMAGE {
            try_start(&starts, "a", of).unwrap();
        }
        assert!(try_start(&starts, "a", 99).is_err());
        starts.started("a");
        assert!(try_start(&starts, "a", 99).is_ok(), "it is known to start");
        starts.forget("a");
        assert!(try_start(&starts, "a", 99).is_err(), "and then it did not");
        // …of one customer…
        let starts = Arc::new(ImageStarts::default());
        let orders: Vec<OrderId> = (0..limits::FIRST_STARTS_OF_ONE)
            .map(|image| try_start(&starts, &image.to_string(), 1).unwrap())
            .collect();
        let refused = try_start(&starts, "b", 1).unwrap_err();
        assert!(refused.message.contains("has not started here yet"), "{refused}");
        let again = starts.try_start(&orders[0], "0", Some(&customer(1)), PLENTY);
        assert_eq!(again, Ok(()), "the same order");
        drop(starts.trying(&orders[0]));
        assert!(try_start(&starts, "b", 1).is_ok(), "one has ended");
        // …and of all, in a large cluster and in a small one.
        for (capacity, most) in [(PLENTY, limits::FIRST_STARTS), (8, 2), (1, 1), (0, 1)] {
            let starts = ImageStarts::default();
            let try_start = |number: usize| {
                let (order, image) = (OrderId::random(), number.to_string());
                starts.try_start(&order, &image, Some(&customer(number)), capacity)
            };
            let begun = (0..100).filter(|number| try_start(*number).is_ok()).count();
            assert_eq!(begun, most, "{capacity}");
        }
    }
}
