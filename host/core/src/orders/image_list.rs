//! A cache of the list of images that offers publish. Reading offers costs nothing, so that it must
//! not call the images policy each time.

use super::set_identity::SetIdentity;
use crate::backend::policy::{Context, ImageOffer, PolicySet};
use crate::limits;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;

/// The latest list.
#[derive(Default)]
pub(super) struct ImageList(Mutex<Option<Listed>>);

struct Listed {
    by: SetIdentity,
    at: Instant,
    images: Vec<ImageOffer>,
}

impl ImageList {
    /// The list of this set's images policy, at most [`limits::IMAGE_LIST_KEPT`] old. If the policy
    /// faults, that is logged, and the list is empty: orders can name images all the same. The
    /// empty list is cached too, since a fault takes the most time.
    pub(super) async fn of(&self, set: &Arc<dyn PolicySet>, context: &Context) -> Vec<ImageOffer> {
        // Those who read meanwhile wait for this call rather than for one of their own.
        let mut listed = self.0.lock().await;
        if let Some(Listed { by, at, images }) = &*listed
            && by.is_of(set)
            && at.elapsed() < limits::IMAGE_LIST_KEPT
        {
            return images.clone();
        }
        let images = set.catalog(context).await.unwrap_or_default();
        let (by, at) = (SetIdentity::of(set), Instant::now());
        *listed = Some(Listed { by, at, images: images.clone() });
        images
    }
}
