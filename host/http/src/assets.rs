//! The page: a few files of `../web`, and two libraries that its `package-lock.json` names, all in
//! the binary.

use crate::extract::{PathParam, Query, header_items};
use crate::openapi;
use crate::problem::{Problem, ProblemType, describe_error};
use crate::state::App;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// The page may load its own files and nothing else.
const PAGE: &str = "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// xterm.js and Swagger UI write styles into their elements.
const STYLED: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct File {
    path: &'static str,
    kind: &'static str,
    policy: &'static str,
    bytes: &'static [u8],
}

macro_rules! file {
    ($path:literal, $kind:expr, $policy:expr, $file:literal) => {
        File {
            path: $path,
            kind: $kind,
            policy: $policy,
            bytes: include_bytes!(concat!("../web/", $file)),
        }
    };
}

const FILES: &[File] = &[
    file!("/", HTML, STYLED, "index.html"),
    file!("/app.js", SCRIPT, PAGE, "app.js"),
    file!("/receipts.js", SCRIPT, PAGE, "receipts.js"),
    file!("/shared.js", SCRIPT, PAGE, "shared.js"),
    file!("/terminal.js", SCRIPT, PAGE, "terminal.js"),
    file!("/style.css", STYLE, PAGE, "style.css"),
    file!("/operator", HTML, PAGE, "operator.html"),
    file!("/operator.js", SCRIPT, PAGE, "operator.js"),
    file!("/charts.js", SCRIPT, PAGE, "charts.js"),
    file!("/docs", HTML, STYLED, "docs.html"),
    file!("/docs.js", SCRIPT, PAGE, "docs.js"),
];

/// Without them the page has no terminal, and `/docs` is the bare document: run `npm ci` in
/// `../web`.
#[cfg(has_libraries)]
const LIBRARIES: &[File] = &[
    file!("/lib/xterm.js", SCRIPT, PAGE, "node_modules/@xterm/xterm/lib/xterm.js"),
    file!("/lib/xterm.css", STYLE, PAGE, "node_modules/@xterm/xterm/css/xterm.css"),
    file!("/lib/addon-fit.js", SCRIPT, PAGE, "node_modules/@xterm/addon-fit/lib/addon-fit.js"),
    file!("/lib/swagger-ui.js", SCRIPT, PAGE, "node_modules/swagger-ui-dist/swagger-ui-bundle.js"),
    file!("/lib/swagger-ui.css", STYLE, PAGE, "node_modules/swagger-ui-dist/swagger-ui.css"),
];
#[cfg(not(has_libraries))]
const LIBRARIES: &[File] = &[];

impl File {
    /// The hash of these bytes.
    fn tag(&self) -> HeaderValue {
        let digest = hex::encode(Sha256::digest(self.bytes));
        HeaderValue::from_str(&format!("\"{digest:.32}\""))
            .unwrap_or(HeaderValue::from_static("\"\""))
    }

    fn respond(&self, tag: &HeaderValue, request: &HeaderMap) -> Response {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.kind)),
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(self.policy)),
            // Another version of the binary has other files at the same URLs: browsers revalidate.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::ETAG, tag.clone()),
        ];
        // A proxy that compresses makes the tag a weak one.
        let is_known = header_items(request, header::IF_NONE_MATCH.as_str())
            .any(|known| known.strip_prefix("W/").unwrap_or(known).as_bytes() == tag.as_bytes());
        match is_known {
            true => (StatusCode::NOT_MODIFIED, headers).into_response(),
            false => (headers, self.bytes).into_response(),
        }
    }
}

pub(crate) fn routes() -> Router<Arc<App>> {
    let mut router = Router::new()
        .route("/openapi.json", get(openapi_json))
        .route("/qr.svg", get(qr))
        .route("/service.json", get(service))
        .route("/problems/{code}", get(problem));
    for file in FILES.iter().chain(LIBRARIES) {
        let tag = file.tag();
        router = router.route(
            file.path,
            get(move |request: HeaderMap| std::future::ready(file.respond(&tag, &request))),
        );
    }
    router
}

async fn openapi_json() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], openapi::openapi())
        .into_response()
}

/// The settings of the page.
async fn service(State(app): State<Arc<App>>) -> Response {
    axum::Json(serde_json::json!({ "name": app.settings.name, "terminal": !LIBRARIES.is_empty() }))
        .into_response()
}

#[derive(Deserialize)]
struct QrQuery {
    text: String,
}

/// A payment request as a QR code.
async fn qr(
    State(app): State<Arc<App>>,
    Query(QrQuery { text }): Query<QrQuery>,
) -> Result<Response, Problem> {
    let svg = app.qr_codes.draw(text).await?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("image/svg+xml"))], svg).into_response())
}

/// The page of a problem's `type`.
async fn problem(PathParam(code): PathParam) -> Result<Response, Problem> {
    let known = describe_error(&code)
        .ok_or_else(|| Problem::new(ProblemType::NoSuchPage, "there is no problem of that name"))?;
    Ok(axum::Json(serde_json::json!({ "error_type": code, "meaning": known })).into_response())
}
