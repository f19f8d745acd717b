//! Which site a request is for, by its host: the service's own, or that of a pod. They are different
//! origins, and nothing of one is reached at the other.

use crate::apps::{AppProxy, contradicting_hosts};
use axum::Router;
use axum::extract::Request;
use axum::http::header::HOST;
use axum::response::Response;
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use paygress_core::model::ids::PodName;

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
