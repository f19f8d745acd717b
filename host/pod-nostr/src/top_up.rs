//! `paygress-top-up`: extends the pod that it runs in.
//!
//! ```text
//! token ─▶ record: key, token ─▶ service ─▶ record: answer ─▶ printed
//! ```
//!
//! The customer's key is not in the pod: each top-up has a key of its own, which the answer and any
//! refund go to. A top-up without an answer is sent again as it was: by the same key, the same token
//! is the same order, and is paid once.

use crate::output::{print_line, print_note};
use crate::record::{Content, Record, RecordError, Records};
use crate::reply::RELAYS;
use crate::service_contact::{ContactError, NostrContact, ServiceContact};
use crate::token_input::{TokenError, read_token};
use paygress_core::error_chain;
use paygress_core::model::ids::PodName;
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::protocol::{ErrorResponse, RequestBody, Response};
use paygress_nostr::client::{Answer, Client};
use paygress_nostr::{Error, Keys, PublicKey, RelayUrl};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long an answer is waited for.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The options of `paygress-top-up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopUp {
    pub(crate) mode: Mode,
    pub(crate) wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A new token, after those without an answer.
    New,
    /// Those without an answer alone.
    Resume,
}

/// Why no top-up was sent.
#[derive(Debug, thiserror::Error)]
enum TopUpError {
    #[error(transparent)]
    Contact(#[from] ContactError),
    #[error(
        "this service takes no messages over Nostr. Extend {pod} over HTTP, with the bearer token that bought it: POST {url}/top-up-pod with {{\"pod_name\": \"{pod}\", \"cashu_token\": \"…\"}}"
    )]
    OverHttp { pod: PodName, url: String },
    #[error(
        "{0} cannot be read, and nothing was sent; log in to the pod again, or use `paygress order top-up` with the key that bought it"
    )]
    Service(&'static str),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("nothing was sent, and the token is still yours")]
    NotConnected(#[source] Error),
}

/// What became of a top-up; the worst is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Extended,
    /// Nothing was taken, or it was given back.
    Refused,
    /// The token was used before: by this top-up, if nobody else has sent it.
    UsedBefore,
    Unknown,
}

impl Outcome {
    fn exit_code(self) -> ExitCode {
        match self {
            Self::Extended => ExitCode::SUCCESS,
            Self::Refused | Self::UsedBefore => ExitCode::FAILURE,
            Self::Unknown => ExitCode::from(2),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    First,
    Again,
}

/// Extends the pod.
pub(crate) async fn top_up(options: TopUp) -> ExitCode {
    match run(options).await {
        Ok(outcome) => outcome.exit_code(),
        Err(error) => {
            print_note(format_args!("paygress-top-up: {}", error_chain(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn run(TopUp { mode, wait }: TopUp) -> Result<Outcome, TopUpError> {
    let records = Records::open()?;
    let mut pending = records.pending()?;
    if pending.is_empty() && mode == Mode::Resume {
        print_note("no top-up waits for an answer");
    }
    let mut worst = Outcome::Extended;
    for record in &mut pending {
        print_note(format_args!("{}: asking again", record.path().display()));
        let resumed = resume(record, wait).await.unwrap_or_else(|error| {
            print_note(error_chain(&error));
            Outcome::Unknown
        });
        worst = worst.max(resumed);
    }
    match mode {
        Mode::Resume => Ok(worst),
        Mode::New => begin(&records, wait).await,
    }
}

/// Sends a new one.
async fn begin(records: &Records, wait: Duration) -> Result<Outcome, TopUpError> {
    let (pod, contact) = ServiceContact::read(|name| std::env::var(name).ok())?;
    let ServiceContact { nostr, url } = contact;
    let Some(NostrContact { npub, relays }) = nostr else {
        let url = url.unwrap_or_else(|| "https://…".to_owned());
        return Err(TopUpError::OverHttp { pod, url });
    };
    let (service, urls) = service(&npub, &relays)?;
    let token = read_token().await?;
    let keys = Keys::generate();
    let client = Client::connect(keys.clone(), urls).await.map_err(TopUpError::NotConnected)?;
    let content = Content::new(&keys, npub, relays, pod.into(), &token);
    let mut record = records.begin(&keys, content)?;
    Ok(send(&client, service, &mut record, Attempt::First, wait).await)
}

/// Sends one that has no answer again.
async fn resume(record: &mut Record, wait: Duration) -> Result<Outcome, TopUpError> {
    let (service, urls) = service(&record.content.service, &record.content.relays)?;
    let keys = Keys::parse(&record.content.key);
    let keys = keys.map_err(|_| TopUpError::Service("the key of this record"))?;
    Ok(match Client::connect(keys, urls).await {
        Ok(client) => send(&client, service, record, Attempt::Again, wait).await,
        Err(error) => {
            no_answer(&error, record.path());
            Outcome::Unknown
        }
    })
}

fn service(npub: &str, relays: &[String]) -> Result<(PublicKey, Vec<RelayUrl>), TopUpError> {
    let key = PublicKey::parse(npub).map_err(|_| TopUpError::Service("PAYGRESS_NPUB"))?;
    let urls: Vec<RelayUrl> =
        relays.iter().filter_map(|url| RelayUrl::parse(url).ok()).take(RELAYS).collect();
    match urls.is_empty() {
        true => Err(TopUpError::Service("PAYGRESS_RELAYS")),
        false => Ok((key, urls)),
    }
}

/// Sends what is in the record, and waits for the answer.
async fn send(
    client: &Client,
    service: PublicKey,
    record: &mut Record,
    attempt: Attempt,
    wait: Duration,
) -> Outcome {
    let request = RequestBody {
        kind: Some("top_up".to_owned()),
        pod_name: Some(record.content.pod.clone()),
        cashu_token: Some(record.content.token.clone()),
        ..RequestBody::default()
    };
    let answer = match client.ask(service, &request, wait, progress).await {
        Ok(answer) => answer,
        Err(error) => {
            no_answer(&error, record.path());
            return Outcome::Unknown;
        }
    };
    let outcome = outcome(answer.response.as_ref(), attempt);
    // One that cannot be read may hold a refund.
    let is_final = outcome != Outcome::Unknown || answer.response.is_none();
    let closed = if is_final { record.close(&answer.text) } else { Ok(()) };
    print_answer(&answer);
    if let Err(error) = closed {
        print_note(format_args!("{}; keep what is printed above", error_chain(&error)));
    }
    print_consequence(outcome, answer.response.as_ref(), record.path());
    outcome
}

fn progress(step: &str) {
    print_note(format_args!("{step}…"));
}

/// What an answer means for the token.
fn outcome(response: Option<&Response>, attempt: Attempt) -> Outcome {
    match response {
        Some(Response::ToppedUp(_)) => Outcome::Extended,
        // The pod was stopped meanwhile; the answer has the refunds.
        Some(Response::Stopped(_)) => Outcome::Refused,
        Some(Response::Error(error)) if error.refund.is_some() => Outcome::Refused,
        Some(Response::Error(error)) => match (error.error_type, attempt) {
            (ErrorType::TokenAlreadySpent | ErrorType::LeaseExpired, Attempt::Again) => {
                Outcome::UsedBefore
            }
            // Of the mint's answer nothing is known yet, or the service does not know itself.
            (
                ErrorType::TokenPending
                | ErrorType::MintNetworkError
                | ErrorType::InternalError
                | ErrorType::Later(_),
                _,
            ) => Outcome::Unknown,
            _ => Outcome::Refused,
        },
        Some(Response::Access(_) | Response::Status(_) | Response::Notice(_)) | None => {
            Outcome::Unknown
        }
    }
}

fn print_answer(answer: &Answer) {
    match &answer.response {
        Some(Response::ToppedUp(extended)) => {
            print_line(format_args!(
                "extended by {} seconds, until {}",
                extended.extended_duration_seconds, extended.new_expires_at
            ));
            print_note(format_args!("{}: {}", extended.pod_name, extended.message));
        }
        Some(Response::Stopped(stopped)) => {
            print_note(format_args!("{}: {}", stopped.pod_name, stopped.message));
            print_refunds(&stopped.refunds.refund_tokens);
        }
        Some(Response::Error(error)) => print_error(error),
        Some(Response::Access(_) | Response::Status(_) | Response::Notice(_)) | None => {
            print_note("This answer cannot be read. It is:");
            print_line(answer.text.expose());
        }
    }
}

fn print_error(error: &ErrorResponse) {
    print_note(format_args!("{}: {}", error.error_type.as_str(), error.message));
    if let Some(details) = &error.details {
        print_note(details);
    }
    print_refunds(error.refund.as_ref().and_then(|refund| refund.refund_token.as_ref()));
}

/// Only the tokens are on standard output.
fn print_refunds<'a>(tokens: impl IntoIterator<Item = &'a Secret>) {
    for token in tokens {
        print_note("Your refund. Whoever has it has the money: receive it in your wallet soon.");
        print_line(token.expose());
    }
}

fn no_answer(error: &Error, record: &Path) {
    print_note(format_args!("no answer: {}", error_chain(error)));
    print_unknown(record);
}

fn print_unknown(record: &Path) {
    print_note(format_args!(
        "The token may have been taken. `paygress-top-up --resume` asks again, and pays once; token and key are in {}: copy the file if the pod ends before.",
        record.display()
    ));
}

/// What it means for the customer, and where everything is.
fn print_consequence(outcome: Outcome, response: Option<&Response>, record: &Path) {
    let error = response.and_then(Response::error);
    let (code, has_refund) =
        (error.map(|error| error.error_type), error.is_none_or(|error| error.refund.is_some()));
    let record_path = record.display();
    match outcome {
        Outcome::Extended => print_note(format_args!(
            "If the pod is stopped early, the refund of this time goes to the key in {record_path}, which ends with the pod: copy the file to keep it."
        )),
        Outcome::Refused if has_refund => {
            print_note(format_args!("The answer is in {record_path} too."));
        }
        Outcome::Refused => {
            print_note(format_args!(
                "Nothing was taken: the token is still yours. It is in {record_path} too."
            ));
            if code == Some(ErrorType::NotOwner) {
                print_note(
                    "The operator lets only the customer who bought a pod extend it: use `paygress order top-up` with the key that bought it.",
                );
            }
        }
        Outcome::UsedBefore => print_note(format_args!(
            "The token was used before: by this top-up, if nobody else has sent it. It is in {record_path}."
        )),
        Outcome::Unknown if response.is_none() => {
            print_note(format_args!("It is in {record_path} too."));
        }
        Outcome::Unknown => print_unknown(record),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paygress_core::model::refusal::Refusal;
    use paygress_core::protocol::Refund;

    fn error(code: ErrorType) -> Response {
        Response::from(&Refusal::new(code, "a test"))
    }

    #[test]
    fn what_may_have_been_taken_is_never_called_refused() {
        let later: ErrorType = serde_json::from_value("too_hot".into()).unwrap();
        for (code, first, again) in [
            (later, Outcome::Unknown, Outcome::Unknown),
            (ErrorType::InvalidToken, Outcome::Refused, Outcome::Refused),
            (ErrorType::NotOwner, Outcome::Refused, Outcome::Refused),
            (ErrorType::ResourceUnavailable, Outcome::Refused, Outcome::Refused),
            (ErrorType::TokenAlreadySpent, Outcome::Refused, Outcome::UsedBefore),
            (ErrorType::LeaseExpired, Outcome::Refused, Outcome::UsedBefore),
            (ErrorType::TokenPending, Outcome::Unknown, Outcome::Unknown),
            (ErrorType::MintNetworkError, Outcome::Unknown, Outcome::Unknown),
            (ErrorType::InternalError, Outcome::Unknown, Outcome::Unknown),
        ] {
            let response = error(code);
            assert_eq!(outcome(Some(&response), Attempt::First), first, "{code}");
            assert_eq!(outcome(Some(&response), Attempt::Again), again, "{code}");
            let Response::Error(mut refunded) = response else { unreachable!("it is one") };
            refunded.refund = Some(Refund {
                refund_token: Some(Secret::new("cashuBrefund")),
                refunded_sats: 1,
                refund_fee_sats: 0,
            });
            let refunded = Response::Error(refunded);
            assert_eq!(outcome(Some(&refunded), Attempt::First), Outcome::Refused, "{code}");
        }
        assert_eq!(outcome(None, Attempt::First), Outcome::Unknown);
    }
}
