//! Which site a request is for, by its host: the service's own, or that of a pod. They are different
//! origins, and nothing of one is reached at the other.

use crate::apps::{AppProxy, contradicting_hosts, own_response};
use crate::overflow::no_place;
use axum::Router;
use axum::extract::Request;
use axum::http::header::HOST;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use paygress_core::model::apps_domain::{AppHost, AppsDomain};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_service::Service;

/// All sites of the server.
#[derive(Clone)]
pub(crate) struct Sites {
    own: Router,
    apps: Option<Arc<AppProxy>>,
}

impl Sites {
    /// None: there are no sites of pods.
    pub(crate) fn new(own: Router, apps: Option<Arc<AppProxy>>) -> Self {
        Self { own, apps }
    }
}

/// The host of a request, or nothing if it names two that are not the same to the domain. A URL in
/// the request's line counts as the header does.
fn host(request: &Request, domain: &AppsDomain) -> Option<AppHost> {
    let of_header = request.headers().get_all(HOST).iter();
    let of_header = of_header.map(|value| value.to_str().unwrap_or_default());
    let mut hosts =
        request.uri().host().into_iter().chain(of_header).map(|name| domain.app_host(name));
    let first = hosts.next().unwrap_or(AppHost::Other);
    hosts.all(|other| other == first).then_some(first)
}

impl Service<Request> for Sites {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let own = |request: Request| self.own.clone().call(request).boxed();
        let Some(apps) = &self.apps else { return own(request) };
        let host = match host(&request, apps.domain()) {
            Some(AppHost::Other) => return own(request),
            Some(host) => host,
            None => return async { Ok(contradicting_hosts()) }.boxed(),
        };
        let apps = Arc::clone(apps);
        async move { Ok(apps.serve(host, request).await) }.boxed()
    }
}

/// Of what is answered without a place, nothing of the service's at the sites of pods.
pub(crate) fn at_own_host(router: Router, domain: AppsDomain) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let is_own = host(&request, &domain) == Some(AppHost::Other);
        async move {
            if is_own {
                next.run(request).await
            } else {
                own_response(no_place().await.into_response())
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::get;
    use paygress_core::model::ids::PodName;

    #[tokio::test]
    async fn without_a_place_the_services_probes_are_at_its_own_host_only() {
        let probes = Router::new().route("/healthz", get(|| async { "ok" }));
        let domain = AppsDomain::parse("apps.example").unwrap();
        let mut router = at_own_host(probes, domain);
        for (host, expected) in [
            ("pods.example", StatusCode::OK),
            ("10.0.0.7:8080", StatusCode::OK),
            ("ssh-pod-aaaaaaaaaa.apps.example", StatusCode::SERVICE_UNAVAILABLE),
            ("apps.example", StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let request = Request::builder().uri("/healthz").header(HOST, host);
            let answer = router.call(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), expected, "{host}");
        }
    }

    fn found(uri: &str, hosts: &[&str]) -> Option<AppHost> {
        let mut request = Request::builder().uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let domain = AppsDomain::parse("apps.example").unwrap();
        host(&request.body(Body::empty()).unwrap(), &domain)
    }

    #[test]
    fn a_request_that_names_two_sites_is_for_none() {
        let pod = Some(AppHost::Pod(PodName::parse("ssh-pod-aaaaaaaaaa").unwrap()));
        let (name, other) = ("ssh-pod-aaaaaaaaaa.apps.example", "ssh-pod-bbbbbbbbbb.apps.example");
        let whole = format!("http://{name}/a");
        for (uri, hosts, expected) in [
            ("/a", &[name][..], pod.clone()),
            (&*whole, &[name], pod.clone()),
            (&*whole, &[], pod.clone()),
            ("/a", &["SSH-pod-aaaaaaaaaa.apps.example.:443", name], pod),
            ("/a", &["pods.example"], Some(AppHost::Other)),
            ("/a", &[], Some(AppHost::Other)),
            ("/a", &["apps.example"], Some(AppHost::NoPod)),
            ("/a", &[name, "pods.example"], None),
            ("/a", &["pods.example", name], None),
            (&*whole, &["pods.example"], None),
            ("http://pods.example/a", &[name], None),
            ("/a", &[name, other], None),
        ] {
            assert_eq!(found(uri, hosts), expected, "{uri} {hosts:?}");
        }
    }
}
