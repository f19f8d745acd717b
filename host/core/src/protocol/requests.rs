//! Requests.

use super::fields;
use super::shape::{check_length, invalid};
use super::token_text::token_text;
use crate::limits;
use crate::model::http_port::{HttpAccess, HttpPort};
use crate::model::ids::{PodName, PublicKey};
use crate::model::login::{Login, LoginFields};
use crate::model::order::Purchase;
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::run::Run;
use crate::model::secret::Secret;
use crate::model::units::Seconds;
use crate::sanitize::is_plain;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// To buy: a new pod or more time.
    Buy {
        /// The token that pays; none: it was not sent, or not in here.
        token: Option<Secret>,
        /// What for.
        purchase: Purchase,
        /// The login's password, when a new pod is bought; none if only a key logs in.
        password: Option<Secret>,
        /// Whether the customer wants notices before the pod's end.
        notices: bool,
    },
    /// To know how a pod is, and which refunds wait.
    Status {
        /// Which.
        pod: PodName,
    },
    /// To end a pod before its time.
    Stop {
        /// Which.
        pod: PodName,
    },
}

/// A request as it is written. Fields that are not known are ignored; a field that is given twice
/// is refused.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[schema(as = Request)]
pub struct RequestBody {
    /// `spawn`, `top_up`, `status` or `stop`; left out, the other fields decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The Cashu token that pays: `cashuA…` or `cashuB…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cashu_token: Option<String>,
    /// The image to run; left out: the operator's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 512)]
    pub pod_image: Option<String>,
    /// What runs in the pod: `ssh`, the SSH server alone, or `image`, beside it what the image starts
    /// by itself (`ENTRYPOINT`, `CMD`); left out: `ssh`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 16)]
    pub run: Option<String>,
    /// The pod's port that browsers reach at `http_url`, where the operator offers that; not the port of
    /// its SSH server. Left out: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "fields::http_port")]
    #[schema(minimum = 1, maximum = 65_535)]
    pub http_port: Option<u64>,
    /// Whether anybody reaches `http_port`; left out or `false`: the pod's customer alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_public: Option<bool>,
    /// The login's name; left out: `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 32)]
    pub ssh_username: Option<String>,
    /// Its password, 8 to 128 characters; left out: one is made, unless there is a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub ssh_password: Option<String>,
    /// One line of an OpenSSH `.pub` file, of kind ed25519, ECDSA or RSA.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096)]
    pub ssh_public_key: Option<String>,
    /// The tier; left out: the operator's first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 192)]
    pub tier: Option<String>,
    /// The same as `tier`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 192)]
    pub pod_spec_id: Option<String>,
    /// The wanted time: an order that does not pay for it is refused. Left out: whatever the token
    /// pays for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "fields::duration_minutes")]
    #[schema(minimum = 1, maximum = 5_256_000)]
    pub duration_minutes: Option<u64>,
    /// The pod, for a top-up, a status or a stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub pod_name: Option<String>,
    /// The same as `pod_name`, or the pod's key as `access_details` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub pod_npub: Option<String>,
    /// Over Nostr: whether to send messages before the pod's end, and at it. Over HTTP they are
    /// events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notices: Option<bool>,
}

fn within(name: &str, value: Option<String>, bytes: usize) -> Result<Option<String>, Refusal> {
    match value {
        Some(text) if text.is_empty() => Ok(None),
        Some(text) if text.len() > bytes => {
            Err(invalid(format!("{name} is longer than {bytes} bytes")))
        }
        Some(text) if !text.chars().all(is_plain) => {
            Err(invalid(format!("{name} must not hold control characters")))
        }
        value => Ok(value),
    }
}

/// Whether a pod is named by its name, and by its key as well.
fn is_key_beside_name(name: &str, npub: &str) -> bool {
    PublicKey::from_npub(npub).is_some() && PublicKey::from_npub(name).is_none()
}

/// The refusal of an order without a token.
#[must_use]
pub fn unpaid() -> Refusal {
    Refusal::new(
        ErrorType::InvalidToken,
        "cashu_token is missing; put a Cashu token (cashuA… or cashuB…) there",
    )
}

impl Request {
    /// Reads a request. A message that names a pod is a top-up, a status or a stop, whatever else
    /// it holds.
    ///
    /// # Errors
    /// `invalid_request` that names the field and says what to write.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let mut body = RequestBody::read(text)?;
        let pod = body.take_pod()?;
        let kind = body.kind(pod.as_ref())?;
        let notices = body.notices();
        match (kind, pod) {
            (Some(Kind::Status), Some(pod)) => Ok(Self::Status { pod }),
            (Some(Kind::Stop), Some(pod)) => Ok(Self::Stop { pod }),
            (kind, pod) => match (body.take_token()?, pod) {
                (None, Some(pod)) if kind.is_none() => Ok(Self::Status { pod }),
                (token, Some(pod)) => {
                    let purchase = Purchase::TopUp { pod };
                    Ok(Self::Buy { token, purchase, password: None, notices })
                }
                (token, None) => body.into_spawn(token),
            },
        }
    }
}

/// What `type` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Spawn,
    TopUp,
    Status,
    Stop,
}

impl RequestBody {
    /// Reads the fields; whether they belong together is [`Request::parse`]'s to say.
    ///
    /// # Errors
    /// `invalid_request` that names the field.
    pub fn read(text: &str) -> Result<Self, Refusal> {
        check_length(text)?;
        // Parsed straight into the fields: serde refuses a field that is given twice.
        fields::from_json(text, r#"{"cashu_token": "cashuB…"}"#)
    }

    fn take_pod(&mut self) -> Result<Option<PodName>, Refusal> {
        let name = within("pod_name", self.pod_name.take(), limits::POD_NAME_BYTES)?;
        let npub = within("pod_npub", self.pod_npub.take(), limits::POD_NAME_BYTES)?;
        match (name, npub) {
            // Both as `access_details` has them: the name says which pod.
            (Some(name), Some(npub)) if name != npub && !is_key_beside_name(&name, &npub) => {
                Err(invalid("pod_name and pod_npub name two pods; send one of them"))
            }
            (name, npub) => name
                .or(npub)
                .map(PodName::parse)
                .transpose()
                .map_err(|error| invalid(error.to_string())),
        }
    }

    /// `None`: the other fields decide.
    fn kind(&self, pod: Option<&PodName>) -> Result<Option<Kind>, Refusal> {
        let kind = match self.kind.as_deref() {
            None => return Ok(None),
            Some("spawn") => Kind::Spawn,
            Some("top_up" | "topup" | "top-up") => Kind::TopUp,
            Some("status") => Kind::Status,
            Some("stop") => Kind::Stop,
            Some(_) => {
                return Err(invalid("type must be spawn, top_up, status or stop, or be left out"));
            }
        };
        match (kind, pod) {
            (Kind::Spawn, Some(_)) => {
                Err(invalid("a spawn does not name a pod; leave pod_name out, or send a top-up"))
            }
            (Kind::TopUp | Kind::Status | Kind::Stop, None) => Err(invalid("pod_name is missing")),
            _ => Ok(Some(kind)),
        }
    }

    fn take_token(&mut self) -> Result<Option<Secret>, Refusal> {
        let token = self.cashu_token.take().map(|text| token_text(&text));
        match token.filter(|token| !token.expose().is_empty()) {
            Some(token) if token.expose().len() > limits::TOKEN_BYTES => Err(Refusal::new(
                ErrorType::InvalidToken,
                format!(
                    "cashu_token is longer than {} bytes; send fewer, larger proofs",
                    limits::TOKEN_BYTES
                ),
            )),
            token => Ok(token),
        }
    }

    fn take_tier(&mut self) -> Result<Option<String>, Refusal> {
        let most = limits::REQUESTED_TIER_BYTES;
        let tier = within("tier", self.tier.take(), most)?;
        let spec = within("pod_spec_id", self.pod_spec_id.take(), most)?;
        match (tier, spec) {
            (Some(tier), Some(spec)) if tier != spec => {
                Err(invalid("tier and pod_spec_id name two tiers; send one of them"))
            }
            (tier, spec) => Ok(tier.or(spec)),
        }
    }

    /// The wanted time.
    #[must_use]
    pub fn wanted(&self) -> Option<Seconds> {
        self.duration_minutes.map(|minutes| Seconds(minutes.saturating_mul(60)))
    }

    fn wanted_run(&self) -> Result<Run, Refusal> {
        match self.run.as_deref() {
            None | Some("") => Ok(Run::Ssh),
            Some(text) => {
                Run::parse(text).ok_or_else(|| invalid("run must be ssh or image, or be left out"))
            }
        }
    }

    fn wanted_http(&self) -> Result<Option<HttpPort>, Refusal> {
        let access = match self.http_public {
            Some(true) => HttpAccess::Public,
            Some(false) | None => HttpAccess::Owner,
        };
        let port = match self.http_port {
            Some(port) => port,
            None if access == HttpAccess::Public => {
                return Err(invalid("http_public is of http_port; send that too"));
            }
            None => return Ok(None),
        };
        let http = HttpPort::new(port, access);
        http.map(Some).ok_or_else(|| invalid("http_port must be a whole number from 1 to 65535"))
    }

    fn notices(&self) -> bool {
        self.notices == Some(true)
    }

    fn into_spawn(mut self, token: Option<Secret>) -> Result<Request, Refusal> {
        let tier = self.take_tier()?;
        let notices = self.notices();
        let (wanted, run, http) = (self.wanted(), self.wanted_run()?, self.wanted_http()?);
        let non_empty = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let login = Login::check(LoginFields {
            username: non_empty(&self.ssh_username).as_deref(),
            password: non_empty(&self.ssh_password).as_deref(),
            public_key: non_empty(&self.ssh_public_key).as_deref(),
        })?;
        Ok(Request::Buy {
            token,
            purchase: Purchase::Spawn {
                image: within("pod_image", self.pod_image, limits::IMAGE_BYTES)?,
                tier,
                username: login.username,
                public_key: login.public_key,
                wanted,
                run,
                http,
            },
            password: login.password,
            notices,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http_of(fields: &str) -> Result<Option<HttpPort>, Refusal> {
        match Request::parse(&format!("{{\"cashu_token\": \"cashuBx\"{fields}}}"))? {
            Request::Buy { purchase, .. } => Ok(purchase.http()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_port_of_http_is_a_number_and_its_customers_unless_they_say_otherwise() {
        let owner = HttpPort::new(8_080, HttpAccess::Owner);
        for (fields, expected) in [
            ("", None),
            (r#", "http_port": null"#, None),
            (r#", "http_port": 8080"#, owner),
            (r#", "http_port": "8080", "http_public": false"#, owner),
            (
                r#", "http_port": 8080, "http_public": true"#,
                HttpPort::new(8_080, HttpAccess::Public),
            ),
            (r#", "http_public": false"#, None),
        ] {
            assert_eq!(http_of(fields), Ok(expected), "{fields}");
        }
        for fields in [
            r#", "http_port": 0"#,
            r#", "http_port": 65536"#,
            r#", "http_port": -1"#,
            r#", "http_port": true"#,
            r#", "http_public": true"#,
            r#", "http_port": 80, "http_public": "yes""#,
        ] {
            let refusal = http_of(fields).unwrap_err();
            assert_eq!(refusal.code, ErrorType::InvalidRequest, "{fields}");
            assert!(refusal.message.contains("http_p"), "{fields}: {}", refusal.message);
        }
    }

    #[test]
    fn a_tier_has_room_for_a_coupon_after_its_id() {
        let longest = "t".repeat(limits::REQUESTED_TIER_BYTES);
        for field in ["tier", "pod_spec_id"] {
            let parse = |tier: &str| {
                Request::parse(&format!(r#"{{"cashu_token": "cashuBx", "{field}": "{tier}"}}"#))
            };
            let Ok(Request::Buy { purchase: Purchase::Spawn { tier, .. }, .. }) = parse(&longest)
            else {
                panic!("{field}: it is refused")
            };
            assert_eq!(tier.as_deref(), Some(longest.as_str()), "{field}");
            let refusal = parse(&format!("{longest}t")).unwrap_err();
            assert_eq!(refusal.code, ErrorType::InvalidRequest, "{field}");
            assert_eq!(refusal.message, format!("{field} is longer than 192 bytes"));
        }
    }
}
