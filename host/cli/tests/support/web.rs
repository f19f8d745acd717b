//! A client of the HTTP API.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::net::SocketAddr;

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    /// It is that problem, and says so in full.
    pub fn is(&self, status: u16, code: &str) -> Value {
        let problem = self.json();
        assert_eq!(
            (self.status, problem["error_type"].as_str()),
            (status, Some(code)),
            "{problem}"
        );
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(
            (problem["status"].as_u64(), &problem["type"]),
            (Some(status.into()), &json!(format!("/problems/{code}")))
        );
        assert!(
            problem["detail"].as_str().is_some_and(|detail| detail.len() > 10),
            "it says what happened: {problem}"
        );
        problem
    }

    pub fn good(&self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.body);
        self.json()
    }
}

#[derive(Clone)]
pub struct Web {
    pub address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Web {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::from(body.to_owned())).unwrap()
    }

    pub async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Incoming> {
        self.client.request(self.request(method, path, headers, body)).await.unwrap()
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.try_ask(method, path, headers, body).await.expect("the connection was cut")
    }

    /// The answer; none if the connection is refused, or cut before all of it has come.
    pub async fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Answer> {
        let request = self.request(method, path, headers, body);
        let (parts, body) = self.client.request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    pub async fn get(&self, path: &str, bearer: &str) -> Answer {
        self.ask("GET", path, &[("authorization", &format!("Bearer {bearer}"))], "").await
    }

    pub async fn spawn(&self, body: Value) -> Answer {
        self.ask("POST", "/spawn-pod", &[], &body.to_string()).await
    }
}
