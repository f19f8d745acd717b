//! What is known here of an order that is worked on.

use super::login_times::StartTime;
use crate::protocol::Response;
use tokio::sync::watch;

pub(super) struct InFlight {
    /// None until there is one.
    pub(super) answer: watch::Receiver<Option<Response>>,
    pub(super) begun: StartTime,
}
