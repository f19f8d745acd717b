//! A request as the handlers see it: its body, its caller, and the token that pays.

use crate::client_address::client_network;
use crate::identity::{Caller, derived_bearer, fresh_bearer, same, scheme_and_rest};
use crate::limits;
use crate::problem::{Problem, ProblemType};
use crate::state::App;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, HeaderValue, header, request::Parts};
use paygress_core::backend::http_auth::SignedRequest;
use paygress_core::model::ids::Customer;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::UnixTime;
use paygress_core::protocol::{describe_field, token_text, without_bom};
use paygress_http_client::BodyError;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// What Cashu tokens begin with.
const CASHU: &str = "cashu";

pub(crate) struct ApiRequest {
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) caller: Caller,
    /// The Cashu token in its headers.
    pub(crate) token: Option<Secret>,
    /// The client's network, if the peer is known.
    pub(crate) network: Option<IpAddr>,
}

impl FromRequest<Arc<App>> for ApiRequest {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = read_body(body).await?;
        check_encoding(&parts.headers, &body)?;
        let (caller, token) = authenticate(&parts, &body, app)?;
        let in_header = single_header(&parts.headers, "x-cashu")?.map(token_text);
        let token = single_token(token, in_header)?;
        let body =
            String::from_utf8(body).map_err(|_| Problem::invalid("the body is not UTF-8"))?;
        let body = without_bom(&body).to_owned();
        let network = client_network(&parts.extensions, &parts.headers, app);
        Ok(Self { headers: parts.headers, body, caller, token, network })
    }
}

/// What axum's query parser says.
type QueryError = serde_path_to_error::Error<serde::de::value::Error>;

pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        // The parser's own message may quote the query, and that may hold a token.
        let invalid = |rejection: QueryRejection| {
            let parameter = query_error(&rejection).and_then(describe_field);
            Problem::invalid(
                parameter
                    .as_deref()
                    .unwrap_or("the query cannot be read; see /docs for its parameters"),
            )
        };
        Ok(Self(query.map_err(invalid)?.0))
    }
}

fn query_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a QueryError> {
    error.downcast_ref().or_else(|| error.source().and_then(query_error))
}

/// The name in the path.
pub(crate) struct PathParam(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathParam {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let path = path.map_err(|_| Problem::invalid("the name in the path cannot be read"))?;
        Ok(Self(path.0))
    }
}

async fn read_body(body: Body) -> Result<Vec<u8>, Problem> {
    let reading = paygress_http_client::read_body(body, limits::BODY_BYTES);
    match tokio::time::timeout(limits::BODY, reading).await {
        Ok(Ok(whole)) => Ok(whole),
        Ok(Err(BodyError::TooLarge { limit })) => Err(Problem::new(
            ProblemType::PayloadTooLarge,
            &format!("a body has {limit} bytes at the most"),
        )),
        Ok(Err(BodyError::TinyPieces)) => Err(Problem::invalid(
            "the body has thousands of pieces of a few bytes; send it with Content-Length, or in larger chunks",
        )),
        Ok(Err(BodyError::Incomplete(_))) => Err(Problem::invalid("the body is incomplete")),
        Err(_) => Err(Problem::new(
            ProblemType::RequestTimeout,
            &format!("the body took longer than {} s", limits::BODY.as_secs()),
        )),
    }
}

/// What is compressed is refused rather than blown up: a request is small as it is.
fn check_encoding(headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let is_plain = |coding: &str| coding.eq_ignore_ascii_case("identity");
    if body.is_empty() || header_items(headers, header::CONTENT_ENCODING.as_str()).all(is_plain) {
        return Ok(());
    }
    let problem = Problem::new(
        ProblemType::UnsupportedMediaType,
        "the body is compressed; send it as it is, without Content-Encoding (Accept-Encoding: identity)",
    );
    Err(problem.header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

/// The items of a header that is a list, in all its lines (RFC 9110, 5.3 and 5.6.1). Lines that
/// cannot be printed have none.
pub(crate) fn header_items<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(split_items).map(str::trim).filter(|item| !item.is_empty())
}

/// Splits at commas that are not quoted.
fn split_items(line: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    line.split(move |character| {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            ',' => return !is_quoted,
            _ => {}
        }
        false
    })
}

/// The only value of a header; `None` when it is not there or empty.
pub(crate) fn single_header<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
            Err(_) => Err(Problem::invalid(&format!("the header {name} must be printable"))),
        },
        (Some(_), Some(_)) => {
            Err(Problem::invalid(&format!("the header {name} must be sent once")))
        }
    }
}

pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let key = single_header(headers, "idempotency-key")?;
    if key.is_some_and(|key| !is_visible(key, &limits::KEY_CHARS)) {
        let (least, most) = (limits::KEY_CHARS.start(), limits::KEY_CHARS.end());
        return Err(Problem::invalid(&format!(
            "an Idempotency-Key has {least} to {most} visible characters; generate a UUID at random"
        )));
    }
    Ok(key)
}

/// The only token of a request, from its two places.
pub(crate) fn single_token(
    first: Option<Secret>,
    second: Option<Secret>,
) -> Result<Option<Secret>, Problem> {
    match (first, second) {
        (Some(first), Some(second)) if first != second => {
            Err(Problem::invalid("the request holds two tokens; send one"))
        }
        (first, second) => Ok(first.or(second)),
    }
}

fn authenticate(
    parts: &Parts,
    body: &[u8],
    app: &App,
) -> Result<(Caller, Option<Secret>), Problem> {
    let Some(text) = single_header(&parts.headers, header::AUTHORIZATION.as_str())? else {
        return Ok((Caller::Anonymous, None));
    };
    let (scheme, rest) = scheme_and_rest(text);
    match scheme.as_str() {
        "bearer" if app.settings.operator_token.as_ref().is_some_and(|token| same(token, rest)) => {
            Ok((Caller::Operator, None))
        }
        "bearer" => Ok((Caller::Customer(Customer::of_bearer(&bearer(rest)?)), None)),
        "nostr" => {
            let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            let url = format!("{}{path}", app.public_url);
            let signed = SignedRequest {
                method: parts.method.as_str(),
                url: &url,
                body,
                now: UnixTime::now(),
            };
            // Which signatures were used is not remembered: within their minute they are good for the
            // same request only, and what changes something does so once. A token pays for one
            // order, and a pod stops once and has its name alone. So a client that got no answer
            // may send its request again, at any replica; whoever else does has the token as well.
            let customer = app.verifier.verify(rest, &signed).map_err(|error| {
                Problem::unauthorized(&format!("the NIP-98 signature is not good: {error}"))
            })?;
            Ok((Caller::Customer(customer), None))
        }
        "cashu" if !rest.is_empty() => Ok((Caller::Anonymous, Some(token_text(rest)))),
        _ => Err(Problem::unauthorized(
            "Authorization must be Bearer, Nostr (NIP-98) or Cashu, and what belongs to it",
        )),
    }
}

/// Whether the text has so many characters, all of them visible.
pub(crate) fn is_visible(text: &str, chars: &RangeInclusive<usize>) -> bool {
    chars.contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic())
}

/// A bearer token, made by the service or by the customer.
pub(crate) fn bearer(text: &str) -> Result<Secret, Problem> {
    // Whoever has seen it would be the customer: the mint, for one.
    if text.get(..CASHU.len()).is_some_and(|start| start.eq_ignore_ascii_case(CASHU)) {
        return Err(Problem::unauthorized(
            "this is a Cashu token, and a bearer token belongs here; what pays goes into X-Cashu, \
             Authorization: Cashu, or cashu_token in the body: {\"cashu_token\": \"cashuB…\"}",
        ));
    }
    if !is_visible(text, &limits::BEARER_CHARS) {
        let (least, most) = (limits::BEARER_CHARS.start(), limits::BEARER_CHARS.end());
        return Err(Problem::unauthorized(&format!(
            "a bearer token has {least} to {most} visible characters; generate one at random"
        )));
    }
    Ok(Secret::new(text))
}

impl ApiRequest {
    /// The customer, where there must be one.
    pub(crate) fn customer(&self) -> Result<&Customer, Problem> {
        match &self.caller {
            Caller::Customer(customer) => Ok(customer),
            Caller::Operator => Err(Problem::unauthorized(
                "this is for customers; the operator's token is not valid here",
            )),
            Caller::Anonymous => Err(Problem::unauthorized(
                "authenticate: Authorization: Bearer, with the bearer_token that came with the pod, or a NIP-98 signature",
            )),
        }
    }

    /// Fails unless the caller is the operator.
    pub(crate) fn operator(&self, app: &App) -> Result<(), Problem> {
        match (&self.caller, &app.settings.operator_token) {
            (_, None) => Err(Problem::operator_disabled()),
            (Caller::Operator, Some(_)) => Ok(()),
            (_, Some(_)) => Err(Problem::operator_only()),
        }
    }

    /// The customer who buys: the caller, or the one of a bearer token that is made for them. Who
    /// sends an idempotency key gets the same one again; that is what makes them the same customer.
    pub(crate) fn buyer(
        &self,
        app: &App,
        idempotency_key: Option<&str>,
    ) -> (Customer, Option<Secret>) {
        self.customer_or(|| {
            idempotency_key
                .map_or_else(fresh_bearer, |key| derived_bearer(&app.settings.bearer_key, key))
        })
    }

    /// The caller, or the customer of this bearer token, with the token.
    pub(crate) fn customer_or(
        &self,
        bearer: impl FnOnce() -> Secret,
    ) -> (Customer, Option<Secret>) {
        match &self.caller {
            Caller::Customer(customer) => (customer.clone(), None),
            Caller::Anonymous | Caller::Operator => {
                let bearer = bearer();
                (Customer::of_bearer(&bearer), Some(bearer))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    #[test]
    fn the_lines_of_a_list_are_one_list() {
        for (lines, expected) in [
            (&[][..], &[][..]),
            (&["a"], &["a"]),
            (&["a", "b"], &["a", "b"]),
            (&["a, b", " c ,,", ""], &["a", "b", "c"]),
            (&[r#"a="x, y", b"#], &[r#"a="x, y""#, "b"]),
            (&[r#"a="x\", y", b"#], &[r#"a="x\", y""#, "b"]),
            (&[r#"a="x, y"#, "b"], &[r#"a="x, y"#, "b"]),
        ] {
            let line = |text: &&str| {
                (HeaderName::from_static("prefer"), HeaderValue::from_str(text).unwrap())
            };
            let headers = HeaderMap::from_iter(lines.iter().map(line));
            let found: Vec<&str> = header_items(&headers, "prefer").collect();
            assert_eq!(found, expected, "{lines:?}");
        }
    }

    #[test]
    fn a_cashu_token_is_no_bearer_token() {
        for token in
            [format!("cashuB{}", "x".repeat(100)), format!("CASHU:cashuA{}", "x".repeat(500))]
        {
            let problem = bearer(&token).unwrap_err();
            assert!(format!("{problem:?}").contains("goes into X-Cashu"), "{problem:?}");
            assert!(!format!("{problem:?}").contains("xxx"), "a token is quoted");
        }
        assert!(bearer(&"b".repeat(40)).is_ok() && bearer("cash").is_err());
    }
}
