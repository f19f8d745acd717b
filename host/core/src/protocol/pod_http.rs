//! Where browsers reach the HTTP port of a pod.

use crate::model::secret::Secret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How browsers reach the pod's HTTP port. Where it has none, all is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PodHttp {
    /// Its URL. Unless the order has made it public, only a browser that its customer has logged in
    /// gets there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_url: Option<String>,
    /// The link that logs a browser in: the first one that opens it, within five minutes, uses
    /// `http_url` for twelve hours. In a status only, which has a new one each time; left out where
    /// the port is public.
    #[serde(default, with = "super::exposed::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub http_login_url: Option<Secret>,
}
