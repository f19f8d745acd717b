//! A request as the handlers see it: its body, its caller, and the token that pays.

use crate::identity::{Caller, derived_bearer, same};
use crate::limits;
use crate::problem::{Fault, Problem};
use crate::state::App;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use paygress_core::backend::http_auth::SignedRequest;
use paygress_core::model::ids::Customer;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::UnixTime;
use paygress_core::protocol::token_text;
use serde::de::DeserializeOwned;
use std::ops::RangeInclusive;
use std::sync::Arc;

pub(crate) struct ApiRequest {
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) caller: Caller,
    /// The Cashu token in its headers.
    pub(crate) token: Option<Secret>,
}

impl FromRequest<Arc<App>> for ApiRequest {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = read_body(body).await?;
        let (caller, token) = authenticate(&parts, &body, app)?;
        let in_header = single_header(&parts.headers, "x-cashu")?.map(token_text);
        let token = single_token(token, in_header)?;
        let body =
            String::from_utf8(body).map_err(|_| Problem::invalid("the body is not UTF-8"))?;
        Ok(Self { headers: parts.headers, body, caller, token })
    }
}

/// The query.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::try_from_uri(&parts.uri);
        // The parser's message may quote the query, and that may hold a token.
        let invalid =
            |_| Problem::invalid("the query cannot be read; see /docs for its parameters");
        Ok(Self(query.map_err(invalid)?.0))
    }
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
    let limited = Limited::new(body, limits::BODY_BYTES);
    match tokio::time::timeout(limits::BODY, limited.collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes().into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            Fault::PayloadTooLarge,
            &format!("a body has {} bytes at the most", limits::BODY_BYTES),
        )),
        Ok(Err(_)) => Err(Problem::invalid("the body is incomplete")),
        Err(_) => Err(Problem::new(
            Fault::RequestTimeout,
            &format!("the body took longer than {} s", limits::BODY.as_secs()),
        )),
    }
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
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim();
    match scheme.to_ascii_lowercase().as_str() {
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
            (_, None) => Err(Problem::new(
                Fault::NoSuchPage,
                "there is no operator's view; set OPERATOR_TOKEN to have one",
            )),
            (Caller::Operator, Some(_)) => Ok(()),
            (_, Some(_)) => Err(Problem::unauthorized(
                "this is for the operator: Authorization: Bearer, with OPERATOR_TOKEN",
            )),
        }
    }

    /// The customer who buys with this token: the caller, or the one of a bearer token that is
    /// derived from it.
    pub(crate) fn buyer(&self, app: &App, token: &Secret) -> (Customer, Option<Secret>) {
        self.customer_or(|| derived_bearer(&app.settings.bearer_key, token))
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
