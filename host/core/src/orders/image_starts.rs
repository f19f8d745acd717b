//! Whether the images that customers name start here, as far as that is known.
//!
//! A pod of an image that never starts has a place until that is known, and at a mint without fees
//! its customer gets back all that they paid. So an image that its node could not pull or start is
//! refused before the payment for a while, and of those that have not started yet few are launched at
//! the same time. What is known is of this process: others find out for themselves.
//!
//! Only so many images are tried at the same time. An image counts once, however many customers
//! order it, and only for the time in which most images are pulled: slow images, ordered under many
//! keys, do not keep other images from being tried. All pods of images that have not started yet,
//! slow ones too, have at most a part of the cluster's places, and those of one image or one customer
//! a share of that part.
//!
//! What is known is of an image in one tier with one kind of program ([`PodImage`]): a tier may
//! have too little memory for an image, and a failure there must not have it refused in other
//! tiers.

use super::lane::Lane;
use crate::backend::cluster::EndReason;
use crate::keyed_limit::{KeyedLimit, Permit};
use crate::limits;
use crate::model::ids::{Customer, ImageRef, OrderId, TierId};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::run::Run;
use crate::recent::Recent;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An image, and what else of an order decides whether its pod starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PodImage {
    image: ImageRef,
    tier: TierId,
    run: Run,
}

impl PodImage {
    pub(super) fn new(image: &ImageRef, tier: &TierId, run: Run) -> Self {
        Self { image: image.clone(), tier: tier.clone(), run }
    }
}

pub(super) struct ImageStarts {
    /// Images that have started.
    started: Mutex<Recent<PodImage>>,
    failures: Mutex<HashMap<PodImage, Failure>>,
    /// The orders whose image has not started yet.
    first: Mutex<HashMap<OrderId, FirstStart>>,
    images: KeyedLimit<PodImage>,
    customers: KeyedLimit<Option<Customer>>,
}

/// The latest failure of an image.
#[derive(Clone, Copy)]
struct Failure {
    at: Instant,
    /// How long orders of the image are refused.
    kept: Duration,
}

impl Failure {
    fn left(self, now: Instant) -> Duration {
        self.kept.saturating_sub(now.saturating_duration_since(self.at))
    }
}

/// An order whose image has not started yet, with its permits.
struct FirstStart {
    image: PodImage,
    begun: Instant,
    /// Whether its token is known to be worth something, or it is paid for.
    lane: Lane,
    _of_image: Permit<PodImage>,
    _of_customer: Permit<Option<Customer>>,
}

/// The claim of an order whose image is being tried. Dropping it ends the claim.
pub(super) struct Trying {
    starts: Arc<ImageStarts>,
    order: OrderId,
}

impl Drop for Trying {
    fn drop(&mut self) {
        self.starts.end(&self.order);
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

    /// Claims the right to try this image, before its order is paid for and after
    /// [`ImageStarts::check`]. If none is left, an order with a proven token takes that of one
    /// without, which cost nothing to send.
    ///
    /// # Errors
    /// `resource_unavailable`: it has not started yet, and enough such pods are being launched.
    pub(super) fn try_start(
        &self,
        order: &OrderId,
        image: &PodImage,
        customer: Option<&Customer>,
        (capacity, lane): (u32, Lane),
        now: Instant,
    ) -> Result<(), Refusal> {
        if lock(&self.started).contains(image) {
            return Ok(());
        }
        let mut first = lock(&self.first);
        if first.contains_key(order) {
            return Ok(());
        }
        let part = usize::try_from(capacity.div_ceil(limits::FIRST_STARTS_PART)).unwrap_or(0);
        let most = part.max(1);
        let share = most.div_ceil(limits::FIRST_STARTS_SHARE);
        let of = [limits::FIRST_STARTS_OF_IMAGE, limits::FIRST_STARTS_OF_ONE];
        let of = of.map(|limit| limit.min(share));
        loop {
            if has_room(&first, image, most, now)
                && let Some(begun) = self.first_start(image, customer, (lane, now), of)
            {
                first.insert(order.clone(), begun);
                return Ok(());
            }
            // One of this image is in the way in any case.
            let unproven = first.iter().filter(|(_, start)| start.lane == Lane::Unproven);
            let removed = unproven.max_by_key(|(_, start)| start.image == *image);
            let removed = removed.filter(|_| lane == Lane::Proven).map(|(order, _)| order.clone());
            drop(first.remove(&removed.ok_or_else(being_tried)?));
        }
    }

    /// The permits of one order: of its image and of its customer, within these limits.
    fn first_start(
        &self,
        image: &PodImage,
        customer: Option<&Customer>,
        (lane, begun): (Lane, Instant),
        [of_image, of_one]: [usize; 2],
    ) -> Option<FirstStart> {
        let of_image = self.images.try_acquire(image.clone(), of_image)?;
        let of_customer = self.customers.try_acquire(customer.cloned(), of_one)?;
        let image = image.clone();
        Some(FirstStart { image, begun, lane, _of_image: of_image, _of_customer: of_customer })
    }

    /// The order is paid for, and its pod is launched: no other order may take its claim from now
    /// on. It is counted even if its claim was taken before, or was made by an earlier process.
    pub(super) fn paid(&self, order: &OrderId, image: &PodImage, customer: Option<&Customer>) {
        let is_known = lock(&self.started).contains(image);
        let mut first = lock(&self.first);
        let begun = (Lane::Proven, Instant::now());
        if let Some(start) = first.get_mut(order) {
            start.lane = Lane::Proven;
        } else if !is_known
            && let Some(start) = self.first_start(image, customer, begun, [usize::MAX; 2])
        {
            first.insert(order.clone(), start);
        }
    }

    /// Ends the claim of this order: no pod of it is being launched any more.
    pub(super) fn end(&self, order: &OrderId) {
        lock(&self.first).remove(order);
    }

    /// Refuses an image that has failed a moment ago.
    pub(super) fn check(&self, image: &PodImage, now: Instant) -> Result<(), Refusal> {
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
    pub(super) fn started(&self, image: &PodImage) {
        lock(&self.failures).remove(image);
        lock(&self.started).insert(image);
    }

    /// Its node could not pull or start it: each time in a row it is refused for twice as long.
    pub(super) fn failed(&self, image: &PodImage, now: Instant) {
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
        failures.insert(image.clone(), Failure { at: now, kept });
    }

    /// A pod of it did not start, for whatever reason: it counts as one that has not started yet.
    pub(super) fn forget(&self, image: &PodImage) {
        lock(&self.started).remove(image);
    }
}

/// Whether a pod of this image may be tried beside these, of which there are `most`.
fn has_room(
    first: &HashMap<OrderId, FirstStart>,
    image: &PodImage,
    most: usize,
    now: Instant,
) -> bool {
    let mut begun = HashMap::<&PodImage, Instant>::new();
    for start in first.values() {
        let begun = begun.entry(&start.image).or_insert(start.begun);
        *begun = start.begun.min(*begun);
    }
    // It has its place, or had it.
    let has_place = begun.contains_key(image);
    let is_held =
        |begun: &&Instant| now.saturating_duration_since(**begun) < limits::FIRST_START_PLACE_KEPT;
    let places = begun.values().filter(is_held).count();
    first.len() < most && (has_place || places < most.min(limits::FIRST_STARTS))
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
    #![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

    use super::*;
    use crate::testing;

    const PLENTY: u32 = 1_000;

    fn customer(number: usize) -> Customer {
        Customer::parse(&format!("{number:064x}")).unwrap()
    }

    fn image(name: &str) -> PodImage {
        PodImage::new(&testing::image(name), &testing::tier("basic"), Run::Ssh)
    }

    fn try_start_in(
        starts: &ImageStarts,
        lane: Lane,
        name: &str,
        of: usize,
    ) -> Result<OrderId, Refusal> {
        let (order, customer) = (OrderId::random(), customer(of));
        let of_all = (PLENTY, lane);
        let now = Instant::now();
        let tried = starts.try_start(&order, &image(name), Some(&customer), of_all, now);
        tried.map(|()| order)
    }

    fn try_start(starts: &ImageStarts, name: &str, of: usize) -> Result<OrderId, Refusal> {
        try_start_in(starts, Lane::Proven, name, of)
    }

    #[test]
    fn an_image_that_fails_is_refused_for_longer_and_longer_until_it_starts() {
        let (starts, mut now) = (ImageStarts::default(), Instant::now());
        for expected in [60, 120, 240, 480, 900, 900] {
            assert_eq!(starts.check(&image("a"), now), Ok(()), "{expected}");
            starts.failed(&image("a"), now);
            let refused = starts.check(&image("a"), now).unwrap_err();
            assert_eq!(refused.code, ErrorType::ResourceUnavailable);
            assert_eq!(refused.end_reason, Some(EndReason::ImageFailed));
            assert!(refused.message.contains(&format!("in {expected} s")), "{refused}");
            assert_eq!(starts.check(&image("b"), now), Ok(()), "another image");
            now = now.checked_add(Duration::from_secs(expected)).unwrap();
        }
        starts.failed(&image("a"), now);
        starts.started(&image("a"));
        assert_eq!(starts.check(&image("a"), now), Ok(()));
        starts.failed(&image("a"), now);
        assert!(starts.check(&image("a"), now).unwrap_err().message.contains("in 60 s"));
    }

    #[test]
    fn no_more_failures_are_kept_than_may_be_the_newest() {
        let (starts, begun) = (ImageStarts::default(), Instant::now());
        let times = 0..limits::IMAGES_KNOWN.saturating_mul(2);
        let last = times.end.saturating_sub(1);
        let mut now = begun;
        for number in times {
            now = now.checked_add(Duration::from_millis(1)).unwrap();
            starts.failed(&image(&number.to_string()), now);
        }
        assert_eq!(lock(&starts.failures).len(), limits::IMAGES_KNOWN);
        assert!(starts.check(&image(&last.to_string()), now).is_err());
        assert!(starts.check(&image("0"), now).is_ok());
    }

    #[test]
    fn few_pods_of_images_that_have_not_started_yet_are_launched_at_the_same_time() {
        // Of one image…
        let starts = Arc::new(ImageStarts::default());
        for of in 0..limits::FIRST_STARTS_OF_IMAGE {
            try_start(&starts, "a", of).unwrap();
        }
        assert!(try_start(&starts, "a", 99).is_err());
        starts.started(&image("a"));
        assert!(try_start(&starts, "a", 99).is_ok(), "it is known to start");
        starts.forget(&image("a"));
        assert!(try_start(&starts, "a", 99).is_err(), "and then it did not");
        // …of one customer…
        let starts = Arc::new(ImageStarts::default());
        let orders: Vec<OrderId> = (0..limits::FIRST_STARTS_OF_ONE)
            .map(|image| try_start(&starts, &image.to_string(), 1).unwrap())
            .collect();
        let refused = try_start(&starts, "b", 1).unwrap_err();
        assert!(refused.message.contains("has not started here yet"), "{refused}");
        let (own, of_all) = (customer(1), (PLENTY, Lane::Proven));
        let now = Instant::now();
        let again = starts.try_start(&orders[0], &image("0"), Some(&own), of_all, now);
        assert_eq!(again, Ok(()), "the same order");
        drop(starts.trying(&orders[0]));
        assert!(try_start(&starts, "b", 1).is_ok(), "one has ended");
        // …and of all, in a large cluster and in a small one.
        for (capacity, most) in [(PLENTY, limits::FIRST_STARTS), (8, 2), (1, 1), (0, 1)] {
            let starts = ImageStarts::default();
            let try_start = |number: usize| {
                let (order, image) = (OrderId::random(), image(&number.to_string()));
                let (customer, of_all) = (customer(number), (capacity, Lane::Proven));
                starts.try_start(&order, &image, Some(&customer), of_all, Instant::now())
            };
            let begun = (0..100).filter(|number| try_start(*number).is_ok()).count();
            assert_eq!(begun, most, "{capacity}");
        }
    }

    /// In a large one these are the limits of an image and of a customer.
    #[test]
    fn one_image_or_customer_has_a_quarter_of_what_may_be_tried_in_a_small_cluster() {
        for (capacity, most, share) in [(40, 10, 3), (16, 4, 1), (5, 2, 1), (0, 1, 1)] {
            let starts = ImageStarts::default();
            let try_start = |name: String, of: usize| {
                let (order, of_all) = (OrderId::random(), (capacity, Lane::Proven));
                let (image, customer) = (image(&name), customer(of));
                let tried =
                    starts.try_start(&order, &image, Some(&customer), of_all, Instant::now());
                tried.is_ok().then_some(order)
            };
            let of_image: Vec<OrderId> =
                (0..100).filter_map(|of| try_start("slow".to_owned(), of)).collect();
            assert_eq!(of_image.len(), share, "of one image, {capacity}");
            of_image.iter().for_each(|order| starts.end(order));
            let of_one = (0..100).filter_map(|name| try_start(format!("slow-{name}"), 1)).count();
            assert_eq!(of_one, share, "of one customer, {capacity}");
            let rest = (0..100_usize).filter_map(|of| try_start(of.to_string(), 200 + of)).count();
            assert_eq!(rest, most - share, "the rest is for others, {capacity}");
        }
    }

    /// Whoever has keys without number, and a registry that is slow.
    #[test]
    fn slow_images_keep_no_others_from_being_tried_and_hold_a_part_of_the_cluster_at_most() {
        let (starts, begun) = (ImageStarts::default(), Instant::now());
        let capacity = limits::FIRST_STARTS_PART * 40;
        let try_start = |number: usize, name: &str, now: Instant| {
            let (order, of_all) = (OrderId::random(), (capacity, Lane::Proven));
            let customer = customer(number);
            let tried = starts.try_start(&order, &image(name), Some(&customer), of_all, now);
            tried.map(|()| order)
        };
        // Orders of one image have one place.
        for number in 0..limits::FIRST_STARTS_OF_IMAGE {
            try_start(number, "a", begun).unwrap();
        }
        for number in 100..99 + limits::FIRST_STARTS {
            try_start(number, &number.to_string(), begun).unwrap();
        }
        let just_before = limits::FIRST_START_PLACE_KEPT - Duration::from_millis(1);
        assert!(try_start(200, "b", begun + just_before).is_err(), "no place is left");
        // Those that are slow have none any more, and no more pods than before.
        let later = begun + limits::FIRST_START_PLACE_KEPT;
        assert!(try_start(200, "a", later).is_err());
        let tried =
            (200..300).map_while(|number| try_start(number, &number.to_string(), later).ok());
        assert_eq!(tried.count(), limits::FIRST_STARTS);
        let much_later = later + limits::FIRST_START_PLACE_KEPT;
        let last =
            (300..400).map_while(|number| try_start(number, &number.to_string(), much_later).ok());
        let last: Vec<OrderId> = last.collect();
        assert_eq!(lock(&starts.first).len(), 40, "a part of the cluster");
        starts.end(&last[0]);
        try_start(400, "c", much_later).unwrap();
    }

    /// A tier may have too little memory for it, or devices that it cannot use.
    #[test]
    fn what_does_not_start_in_one_tier_is_not_refused_in_another() {
        let (starts, now) = (ImageStarts::default(), Instant::now());
        let image = |tier, run| PodImage::new(&testing::image("a"), &testing::tier(tier), run);
        let small = image("small", Run::Ssh);
        let others = [image("large", Run::Ssh), image("small", Run::Image)];
        others.iter().for_each(|other| starts.started(other));
        starts.failed(&small, now);
        assert!(starts.check(&small, now).is_err());
        for other in &others {
            assert_eq!(starts.check(other, now), Ok(()));
            assert!(lock(&starts.started).contains(other), "{other:?}");
        }
    }

    /// Tokens that somebody has invented cost nothing, and are found out only when they are swapped.
    #[test]
    fn whoever_pays_does_not_stand_behind_invented_tokens() {
        let starts = ImageStarts::default();
        for of in 0..limits::FIRST_STARTS_OF_IMAGE {
            try_start_in(&starts, Lane::Unproven, "a", of).unwrap();
        }
        assert!(try_start_in(&starts, Lane::Unproven, "a", 99).is_err());
        // Each takes the place of one.
        for of in 0..limits::FIRST_STARTS_OF_IMAGE {
            try_start(&starts, "a", 100 + of).unwrap();
        }
        assert_eq!(lock(&starts.first).len(), limits::FIRST_STARTS_OF_IMAGE);
        assert!(try_start(&starts, "a", 99).is_err(), "none is left that costs nothing");
        // All places are taken, of other images.
        let starts = ImageStarts::default();
        let orders: Vec<OrderId> = (0..limits::FIRST_STARTS)
            .map(|of| try_start_in(&starts, Lane::Unproven, &of.to_string(), of).unwrap())
            .collect();
        let paid = |of: usize| starts.paid(&orders[of], &image(&of.to_string()), None);
        (1..orders.len()).for_each(paid);
        try_start(&starts, "a", 99).unwrap();
        assert!(!lock(&starts.first).contains_key(&orders[0]));
        assert!(try_start(&starts, "b", 98).is_err(), "the others are paid for");
        starts.end(&orders[1]);
        let other = try_start(&starts, "b", 98).unwrap();
        // Was it worth something after all, it counts again.
        paid(0);
        starts.end(&other);
        assert!(try_start(&starts, "c", 97).is_err());
        starts.end(&orders[2]);
        assert!(try_start(&starts, "c", 97).is_ok());
    }
}
