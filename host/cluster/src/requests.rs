//! Requests to the API server on behalf of orders, and what their failures mean for them.

use crate::connection::{RequestError, with_timeout};
use paygress_core::backend::cluster::ClusterError;
use paygress_core::model::refusal::{ErrorType, Refusal};

pub(crate) type Result<T> = std::result::Result<T, ClusterError>;

pub(crate) type Answer<T> = std::result::Result<T, RequestError>;

/// The answer to a request, as an error of the order service.
pub(crate) async fn request<T>(
    request: impl Future<Output = std::result::Result<T, kube::Error>>,
) -> Result<T> {
    with_timeout(request).await.map_err(cluster_error)
}

/// Whether there was nothing left to delete.
pub(crate) fn is_gone<T>(deleted: Answer<T>) -> Result<bool> {
    match deleted {
        Ok(_) => Ok(false),
        Err(error) if error.is_not_found() => Ok(true),
        Err(error) => Err(cluster_error(error)),
    }
}

/// What a failed request means for an order. The API server's message is for the operator only: it
/// names namespaces, quotas and rights.
pub(crate) fn cluster_error(error: RequestError) -> ClusterError {
    let status = match error {
        RequestError::Api(kube::Error::Api(status)) => status,
        error => return ClusterError::unavailable(error),
    };
    let message = &status.message;
    // The node port of a Service.
    if status.code == 422 && message.contains("provided port is already allocated") {
        return ClusterError::port_taken(*status);
    }
    let (error_type, text) = match status.code {
        403 if message.contains("exceeded quota") => (
            ErrorType::ResourceUnavailable,
            "the cluster's quota is used up; try again later or choose a smaller tier",
        ),
        403 if message.contains("violates PodSecurity") => {
            (ErrorType::BackendError, "the cluster's security rules do not allow this pod")
        }
        // A missing right, or a rule that only the operator knows.
        400 | 401 | 403 | 404 | 405 | 409 | 422 => (
            ErrorType::BackendError,
            "the cluster refused this pod; the reason is in the operator's log",
        ),
        _ => return ClusterError::unavailable(*status),
    };
    tracing::warn!(code = status.code, reason = message, "the cluster refused a request");
    ClusterError::Refused(Refusal::new(error_type, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use std::error::Error;

    fn status(code: u16) -> ClusterError {
        answer(code, "etcd is away")
    }

    fn answer(code: u16, message: &str) -> ClusterError {
        let answer = Status {
            code,
            message: message.to_owned(),
            reason: "InternalError".to_owned(),
            ..Status::default()
        };
        cluster_error(RequestError::Api(kube::Error::Api(answer.boxed())))
    }

    #[test]
    fn what_the_api_server_answered_is_kept_for_the_operator() {
        let failed = status(500);
        assert!(failed.source().is_some(), "{failed:?}");
        let ClusterError::Unavailable(cause) = failed else { panic!("{failed:?}") };
        assert_eq!(cause.downcast_ref::<Status>().unwrap().code, 500);
        assert_eq!(cause.to_string(), "etcd is away: InternalError");

        let timed_out = cluster_error(RequestError::TimedOut);
        let ClusterError::Unavailable(cause) = timed_out else { panic!("{timed_out:?}") };
        assert!(matches!(cause.downcast_ref::<RequestError>(), Some(RequestError::TimedOut)));

        let ClusterError::Refused(refusal) = status(403) else { panic!("not refused") };
        assert!(!refusal.message.contains("etcd"), "{refusal:?}");
    }

    #[test]
    fn a_node_port_of_another_service_is_a_port_that_is_taken() {
        let invalid = |why: &str| {
            format!("Service \"a\" is invalid: spec.ports[0].nodePort: Invalid value: 31100: {why}")
        };
        let taken = answer(422, &invalid("provided port is already allocated"));
        assert!(matches!(taken, ClusterError::PortTaken(_)), "{taken:?}");
        let outside = answer(422, &invalid("provided port is not in the valid range"));
        assert!(matches!(outside, ClusterError::Refused(_)), "{outside:?}");
    }
}
