//! The messages that customers and the service exchange, as JSON. Both transports share them.
//!
//! Names of fields are those that existing customers speak; unknown fields are ignored, unknown
//! values are not guessed.

//!
//! - `mod.rs`: requests.
//! - `responses.rs`: responses.

mod responses;

pub use responses::*;

use crate::limits;
use crate::model::login::Login;
use crate::model::order::Purchase;
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::secret::Secret;
use crate::model::units::{PodName, Seconds};
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
        /// The login's password, when a new pod is bought.
        password: Option<Secret>,
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
    /// The login's name; left out: `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 32)]
    pub ssh_username: Option<String>,
    /// Its password, 8 to 128 characters; left out: one is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub ssh_password: Option<String>,
    /// One line of an OpenSSH `.pub` file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096)]
    pub ssh_public_key: Option<String>,
    /// The tier; left out: the operator's first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub tier: Option<String>,
    /// The same as `tier`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub pod_spec_id: Option<String>,
    /// The wanted time: an order that does not pay for it is refused. Left out: whatever the token
    /// pays for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 5_256_000)]
    pub duration_minutes: Option<u64>,
    /// The pod, for a top-up, a status or a stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub pod_name: Option<String>,
    /// The same as `pod_name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub pod_npub: Option<String>,
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorType::InvalidRequest, message)
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

/// The refusal of an order without a token.
#[must_use]
pub fn unpaid() -> Refusal {
    Refusal::new(
        ErrorType::InvalidToken,
        "cashu_token is missing; put a Cashu token (cashuA… or cashuB…) there",
    )
}

/// Refuses nesting that could exhaust a parser's stack, and objects that say a thing twice: which
/// one is meant?
fn check_shape(text: &str) -> Result<(), Refusal> {
    if text.len() > limits::REQUEST_BYTES {
        return Err(invalid(format!("the request is longer than {} bytes", limits::REQUEST_BYTES)));
    }
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth = depth.saturating_add(1),
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limits::REQUEST_DEPTH {
            return Err(invalid(format!(
                "the request is nested deeper than {}",
                limits::REQUEST_DEPTH
            )));
        }
    }
    Ok(())
}

impl Request {
    /// Reads a request. A message that names a pod is a top-up, a status or a stop, whatever else
    /// it holds.
    ///
    /// # Errors
    /// `invalid_request` that names the field and says what to write.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        check_shape(text)?;
        // Parsed straight into the fields: serde refuses a field that is given twice.
        let fields: RequestBody = serde_json::from_str(text).map_err(|error| {
            // The parser's own message would quote its input, which may be a token.
            let (line, column) = (error.line(), error.column());
            invalid(format!("the request is not a JSON object with the known fields (line {line}, column {column})"))
        })?;
        let pod = match (
            within("pod_name", fields.pod_name, limits::POD_NAME_BYTES)?,
            within("pod_npub", fields.pod_npub, limits::POD_NAME_BYTES)?,
        ) {
            (Some(name), Some(npub)) if name != npub => {
                return Err(invalid("pod_name and pod_npub name two pods; send one of them"));
            }
            (name, npub) => name.or(npub).map(PodName),
        };
        let kind = fields.kind.as_deref();
        match (&pod, kind) {
            (_, None)
            | (None, Some("spawn"))
            | (Some(_), Some("top_up" | "topup" | "top-up" | "status" | "stop")) => {}
            (None, Some("status" | "stop" | "top_up" | "topup" | "top-up")) => {
                return Err(invalid("pod_name is missing"));
            }
            (Some(_), Some("spawn")) => {
                return Err(invalid(
                    "a spawn does not name a pod; leave pod_name out, or send a top-up",
                ));
            }
            (_, Some(_)) => {
                return Err(invalid("type must be spawn, top_up, status or stop, or be left out"));
            }
        }
        if let (Some("status"), Some(pod)) = (kind, &pod) {
            return Ok(Self::Status { pod: pod.clone() });
        }
        if let (Some("stop"), Some(pod)) = (kind, &pod) {
            return Ok(Self::Stop { pod: pod.clone() });
        }
        let token = match fields.cashu_token {
            Some(token) if token.len() > limits::TOKEN_BYTES => {
                return Err(Refusal::new(
                    ErrorType::InvalidToken,
                    format!(
                        "cashu_token is longer than {} bytes; send fewer, larger proofs",
                        limits::TOKEN_BYTES
                    ),
                ));
            }
            Some(token) if !token.trim().is_empty() => Some(Secret::new(token.trim())),
            _ if pod.is_some() && kind.is_none() => {
                return Ok(Self::Status { pod: pod.unwrap_or_default() });
            }
            _ => None,
        };
        if let Some(pod) = pod {
            return Ok(Self::Buy { token, purchase: Purchase::TopUp { pod }, password: None });
        }
        let tier = match (
            within("tier", fields.tier, limits::TIER_BYTES)?,
            within("pod_spec_id", fields.pod_spec_id, limits::TIER_BYTES)?,
        ) {
            (Some(tier), Some(spec)) if tier != spec => {
                return Err(invalid("tier and pod_spec_id name two tiers; send one of them"));
            }
            (tier, spec) => tier.or(spec),
        };
        let wanted = match fields.duration_minutes {
            Some(minutes) if minutes == 0 || minutes > limits::WANTED_MINUTES => {
                return Err(invalid(format!(
                    "duration_minutes must be 1 to {}, or be left out",
                    limits::WANTED_MINUTES
                )));
            }
            minutes => minutes.map(|minutes| Seconds(minutes.saturating_mul(60))),
        };
        let non_empty = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let login = Login::check(
            non_empty(&fields.ssh_username).as_deref(),
            non_empty(&fields.ssh_password).as_deref(),
            non_empty(&fields.ssh_public_key).as_deref(),
        )?;
        Ok(Self::Buy {
            token,
            purchase: Purchase::Spawn {
                image: within("pod_image", fields.pod_image, limits::IMAGE_BYTES)?,
                tier,
                username: login.username,
                public_key: login.public_key,
                wanted,
            },
            password: Some(login.password),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::order::Order;
    use crate::model::units::Sat;
    use proptest::prelude::*;
    use serde_json::json;

    fn code(text: &str) -> ErrorType {
        Request::parse(text).unwrap_err().code
    }

    #[test]
    fn a_spawn_reads_with_all_and_with_no_options() {
        let Request::Buy { token, purchase: Purchase::Spawn { image, tier, username, wanted, .. }, password } =
            Request::parse(r#"{"cashu_token":" cashuBx ","pod_image":"a/b:1","ssh_username":"alice","ssh_password":"'\"$;: xx","pod_spec_id":"basic","duration_minutes":2,"other":[{}]}"#).unwrap()
        else {
            panic!("not a spawn")
        };
        assert_eq!(token.unwrap().expose(), "cashuBx");
        assert_eq!(
            (image.as_deref(), tier.as_deref(), username.as_str(), wanted),
            (Some("a/b:1"), Some("basic"), "alice", Some(Seconds(120)))
        );
        assert_eq!(password.unwrap().expose(), "'\"$;: xx");
        assert!(matches!(
            Request::parse(r#"{"cashu_token":"cashuBx"}"#),
            Ok(Request::Buy { purchase: Purchase::Spawn { .. }, .. })
        ));
    }

    #[test]
    fn the_examples_read_as_what_they_are_named_for() {
        let spawn = Request::parse(include_str!("../../../../examples/orders/spawn.json")).unwrap();
        assert!(matches!(
            spawn,
            Request::Buy { purchase: Purchase::Spawn { wanted: Some(Seconds(3_600)), .. }, .. }
        ));
        let top_up =
            Request::parse(include_str!("../../../../examples/orders/top-up.json")).unwrap();
        assert!(matches!(top_up, Request::Buy { purchase: Purchase::TopUp { .. }, .. }));
        assert!(matches!(
            Request::parse(include_str!("../../../../examples/orders/status.json")),
            Ok(Request::Status { .. })
        ));
    }

    #[test]
    fn what_names_a_pod_is_a_top_up_or_a_status() {
        for text in [
            r#"{"pod_name":"ssh-pod-a","cashu_token":"cashuBx"}"#,
            r#"{"pod_npub":"ssh-pod-a","cashu_token":"cashuBx","pod_image":"x","ssh_username":"ro;ot"}"#,
            r#"{"type":"top_up","pod_name":"ssh-pod-a","cashu_token":"cashuBx"}"#,
        ] {
            assert!(
                matches!(Request::parse(text), Ok(Request::Buy { purchase: Purchase::TopUp { pod }, .. }) if pod.0 == "ssh-pod-a"),
                "{text}"
            );
        }
        assert!(
            matches!(Request::parse(r#"{"type":"stop","pod_name":"ssh-pod-a"}"#), Ok(Request::Stop { pod }) if pod.0 == "ssh-pod-a")
        );
        for text in [
            r#"{"pod_name":"ssh-pod-a"}"#,
            r#"{"type":"status","pod_name":"ssh-pod-a","cashu_token":"cashuBx"}"#,
        ] {
            assert!(
                matches!(Request::parse(text), Ok(Request::Status { pod }) if pod.0 == "ssh-pod-a"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_order_without_a_token_is_not_paid_for() {
        for text in ["{}", r#"{"cashu_token":""}"#, r#"{"type":"top_up","pod_name":"ssh-pod-a"}"#] {
            assert!(matches!(Request::parse(text), Ok(Request::Buy { token: None, .. })), "{text}");
        }
    }

    #[test]
    fn bad_requests_say_what_is_wrong() {
        for (text, expected) in [
            ("", ErrorType::InvalidRequest),
            ("[]", ErrorType::InvalidRequest),
            ("nonsense", ErrorType::InvalidRequest),
            (r#"{"cashu_token":7}"#, ErrorType::InvalidRequest),
            (r#"{"cashu_token":"a","cashu_token":"b"}"#, ErrorType::InvalidRequest),
            (r#"{"cashu_token":"a","duration_minutes":-1}"#, ErrorType::InvalidRequest),
            (r#"{"cashu_token":"a","duration_minutes":0}"#, ErrorType::InvalidRequest),
            (
                r#"{"cashu_token":"a","duration_minutes":18446744073709551615}"#,
                ErrorType::InvalidRequest,
            ),
            (r#"{"cashu_token":"a","tier":"x","pod_spec_id":"y"}"#, ErrorType::InvalidRequest),
            (r#"{"cashu_token":"a","pod_name":"x","pod_npub":"y"}"#, ErrorType::InvalidRequest),
            (r#"{"cashu_token":"a","pod_image":"x\u0000"}"#, ErrorType::InvalidRequest),
            (r#"{"cashu_token":"a","ssh_username":"root"}"#, ErrorType::InvalidRequest),
            (r#"{"type":"status"}"#, ErrorType::InvalidRequest),
            (r#"{"type":"spawn","pod_name":"x","cashu_token":"a"}"#, ErrorType::InvalidRequest),
            (r#"{"type":"dance","cashu_token":"a"}"#, ErrorType::InvalidRequest),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
        assert_eq!(code(&format!("{{\"a\":{}", "[".repeat(60_000))), ErrorType::InvalidRequest);
        assert_eq!(code(&" ".repeat(limits::REQUEST_BYTES + 1)), ErrorType::InvalidRequest);
        assert_eq!(
            code(&format!("{{\"cashu_token\":\"{}\"}}", "a".repeat(limits::TOKEN_BYTES + 1))),
            ErrorType::InvalidToken
        );
    }

    #[test]
    fn an_error_carries_the_refund_and_nothing_else() {
        let refusal = Refusal::new(ErrorType::ProvisioningError, "no");
        assert_eq!(
            sorted(&Response::from(&refusal)),
            json!({"type": "error", "error_type": "provisioning_error", "message": "no"})
        );
        let mut order = Order::blank(Purchase::TopUp { pod: PodName::default() });
        order.secrets.token = Some(Secret::new("cashuBspent"));
        order.secrets.password = Some(Secret::new("hunter22"));
        assert_eq!(refused(&order, &refusal), Response::from(&refusal));
        (order.refunded, order.refund_fee) = (Some(Sat(7)), Some(Sat(1)));
        order.secrets.refund_token = Some(Secret::new("cashuBx"));
        let response = refused(&order, &refusal);
        let json = sorted(&response);
        assert_eq!(
            (&json["refund_token"], &json["refunded_sats"], &json["refund_fee_sats"]),
            (&json!("cashuBx"), &json!(7), &json!(1))
        );
        assert!(json["message"].as_str().unwrap().contains("the mint's fee of 1 sat"), "{json}");
        assert!(!json.to_string().contains("spent") && !json.to_string().contains("hunter22"));
        assert!(!format!("{response:?}").contains("cashuBx"), "a token is in Debug");
        order.secrets.refund_token = None;
        let json = refused(&order, &refusal).to_json();
        assert!(json.contains(r#""refund_token":null"#), "{json}");
        assert_eq!(serde_json::from_str::<Response>(&json).unwrap(), refused(&order, &refusal));
    }

    #[test]
    fn what_cannot_be_read_is_not_quoted() {
        for text in
            [r#""cashuBsecret""#, r#"{"duration_minutes":"cashuBsecret"}"#, r#"["cashuBsecret"]"#]
        {
            assert!(
                !format!("{:?}", Request::parse(text).unwrap_err()).contains("secret"),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in ".{0,400}") {
            let _ = Request::parse(&text);
        }

        #[test]
        fn no_fields_panic(name in ".{0,40}", password in ".{0,140}", minutes in any::<u64>(), pod in proptest::option::of(".{0,140}")) {
            let text = json!({"cashu_token": "x", "ssh_username": name, "ssh_password": password, "duration_minutes": minutes, "pod_name": pod}).to_string();
            if let Ok(Request::Buy { purchase: Purchase::Spawn { username, .. }, .. }) = Request::parse(&text) {
                prop_assert!(username.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-'));
            }
        }
    }
}
