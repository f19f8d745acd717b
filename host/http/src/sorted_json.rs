//! JSON bodies with sorted keys: clients of version 0.1.0 see the same bytes.

use axum::Json;
use axum::response::{IntoResponse, Response};
use paygress_core::protocol::sorted;
use serde::Serialize;

pub(crate) struct SortedJson<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for SortedJson<T> {
    fn into_response(self) -> Response {
        Json(sorted(&self.0)).into_response()
    }
}
