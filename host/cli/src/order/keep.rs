//! `paygress order keep`: extends a pod in small steps until a budget is spent, for jobs and agents
//! that do not know how long they take.
//!
//! ```text
//! tokens ─▶ record: unused ─▶ last third of the time ─▶ record: sent ─▶ service ─▶ record: used, …
//! ```
//!
//! A token is in the record before it is sent. After a crash, or without an answer, the same token is
//! sent again: that is the same order, and it is paid once.

use super::print::{Format, print_answer, print_response};
use super::receipts::Receipts;
use super::record::{NextToken, Record, TokenState};
use super::request::of_pod;
use crate::output::print_note;
use crate::ssh_command::KnownHosts;
use anyhow::{Context, Result, bail};
use clap::Args;
use paygress_core::model::ids::PodName;
use paygress_core::model::refusal::ErrorType;
use paygress_core::model::secret::Secret;
use paygress_core::model::units::{Sat, Seconds};
use paygress_core::protocol::{PodStatus, RequestBody, Response, StatusResponse};
use paygress_nostr::client::{Answer, Client};
use paygress_nostr::{Error, PublicKey};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What is read of tokens: a thousand of the largest that a message holds.
const TOKENS_BYTES: u64 = 32 << 20;
/// A token is sent when so much is left at least: mint, relays and service need their time.
const LEAST_LEAD: Seconds = Seconds(60);
/// How long to wait before a request is repeated, at most.
const RETRY: Seconds = Seconds(30);
/// And at least: the same request in the same second is the same message, with the same answer.
const BETWEEN_REQUESTS: Seconds = Seconds(1);
/// How often the status is requested in a row without an answer.
const STATUS_ATTEMPTS: u32 = 20;

/// Arguments of `paygress order keep`.
#[derive(Args)]
pub(super) struct KeepArguments {
    /// The pod's name.
    pod: String,
    /// The most to send, in sat, with what the record says was sent before.
    #[arg(long, value_name = "SATS")]
    budget: u64,
    /// A file of Cashu tokens, one a line; `-` reads standard input. Left out: those of the record.
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// The file of tokens and of what became of them. Left out: beside your key.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

impl KeepArguments {
    /// Reads the tokens into the record. `beside` is the key's file.
    ///
    /// # Errors
    /// Tokens or record cannot be read.
    pub(super) fn open(&self, beside: &Path) -> Result<Record> {
        let pod = PodName::parse(self.pod.as_str())?;
        let path = self.record.clone().unwrap_or_else(|| beside.with_file_name(file_name(&pod)));
        let mut record = Record::open(&path, &pod)?;
        if let Some(tokens) = &self.tokens {
            let read: Box<dyn Read> = match tokens.as_os_str() == "-" {
                true => Box::new(std::io::stdin()),
                false => Box::new(
                    std::fs::File::open(tokens)
                        .with_context(|| format!("{} cannot be read", tokens.display()))?,
                ),
            };
            let mut text = String::new();
            read.take(TOKENS_BYTES).read_to_string(&mut text).context("the tokens are no text")?;
            record.add(&text)?;
        }
        Ok(record)
    }

    /// Extends the pod until there is a reason to stop.
    ///
    /// # Errors
    /// The record cannot be written, or the service does not answer for long.
    pub(super) async fn run(
        &self,
        service: &impl Service,
        record: &mut Record,
        known_hosts: &KnownHosts,
        format: Format,
    ) -> Result<ExitCode> {
        let mut extension = Extension {
            service,
            record,
            known_hosts,
            pod: &self.pod,
            budget: Sat(self.budget),
            format,
        };
        let stop = extension.run().await?;
        print_note(format_args!("{}: {}", stop.reason(), extension.spending()));
        for left in extension.leftovers() {
            print_note(format_args!("{left}"));
        }
        Ok(stop.exit_code())
    }
}

/// A pod's name may hold anything.
fn file_name(pod: &PodName) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = pod.as_str().chars().map(plain).collect();
    format!("keep-{name}.json")
}

/// The service, and the time until it is needed again.
pub(super) trait Service {
    async fn request(&self, request: &RequestBody) -> Result<Answer, Error>;

    async fn wait(&self, time: Seconds);
}

/// A service on relays.
pub(super) struct RemoteService<'a> {
    pub(super) client: &'a Client,
    pub(super) service: PublicKey,
    pub(super) timeout: Duration,
    pub(super) receipts: Receipts,
}

impl Service for RemoteService<'_> {
    async fn request(&self, request: &RequestBody) -> Result<Answer, Error> {
        let answer = self.client.ask(self.service, request, self.timeout, |_| ()).await?;
        self.receipts.store(&answer);
        Ok(answer)
    }

    async fn wait(&self, time: Seconds) {
        tokio::time::sleep(Duration::from_secs(time.0)).await;
    }
}

/// Why no further token is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// What is left of the budget pays for none of the tokens.
    BudgetSpent,
    NoTokens,
    Ended,
    /// The service does not extend this pod for this customer, or cannot be understood.
    Refused,
}

impl Stop {
    fn reason(self) -> &'static str {
        match self {
            Self::BudgetSpent => "what is left of the budget pays for none of the tokens",
            Self::NoTokens => "there are no tokens left",
            Self::Ended => "the pod has ended",
            Self::Refused => "the pod cannot be extended",
        }
    }

    fn exit_code(self) -> ExitCode {
        match self {
            Self::BudgetSpent => ExitCode::SUCCESS,
            Self::Refused => ExitCode::FAILURE,
            Self::NoTokens => ExitCode::from(3),
            Self::Ended => ExitCode::from(4),
        }
    }
}

/// What to do after an answer to a top-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Continue,
    /// After a pause.
    Retry,
    /// Nothing more is sent.
    AwaitEnd,
    Stop(Stop),
}

/// What an answer means for the token, which was in this state before, and for the next one.
fn outcome(response: &Response, was: TokenState) -> (TokenState, After) {
    match response {
        Response::ToppedUp(_) => (TokenState::Used, After::Continue),
        // The pod was stopped meanwhile: its status says so.
        Response::Stopped(_) => (TokenState::Refunded, After::Continue),
        Response::Error(error) if error.refund.is_some() => (TokenState::Refunded, After::Retry),
        Response::Error(error) => match error.error_type {
            // Its answer was lost before, and the service has forgotten the order.
            ErrorType::TokenAlreadySpent if was == TokenState::Sent => {
                (TokenState::Used, After::Continue)
            }
            ErrorType::InvalidToken
            | ErrorType::NonWhitelistedMint
            | ErrorType::UnsupportedUnit
            | ErrorType::InsufficientPayment
            | ErrorType::TokenAlreadySpent => (TokenState::Refused, After::Continue),
            ErrorType::LeaseExpired => (not_taken(was), After::AwaitEnd),
            ErrorType::NotFound | ErrorType::NotOwner => {
                (not_taken(was), After::Stop(Stop::Refused))
            }
            // What it means for the token is not known.
            ErrorType::Later(_) => (TokenState::Sent, After::Stop(Stop::Refused)),
            _ => (TokenState::Sent, After::Retry),
        },
        Response::Access(_) | Response::Status(_) | Response::Notice(_) => {
            (TokenState::Sent, After::Stop(Stop::Refused))
        }
    }
}

/// The service has the token all the same. If its answer was lost before, it may have been used.
fn not_taken(was: TokenState) -> TokenState {
    match was {
        TokenState::Unused => TokenState::Refused,
        was => was,
    }
}

/// The refund that an answer holds.
fn refund(response: &Response) -> Option<&Secret> {
    match response {
        Response::Error(error) => error.refund.as_ref()?.refund_token.as_ref(),
        Response::Stopped(stopped) => stopped.refunds.refund_token.as_ref(),
        _ => None,
    }
}

fn third(time: Seconds) -> Seconds {
    Seconds(time.0.checked_div(3).unwrap_or(0))
}

struct Extension<'a, S> {
    service: &'a S,
    record: &'a mut Record,
    known_hosts: &'a KnownHosts,
    pod: &'a str,
    budget: Sat,
    format: Format,
}

impl<S: Service> Extension<'_, S> {
    async fn run(&mut self) -> Result<Stop> {
        // The end whose last third was waited for.
        let mut awaited = None;
        loop {
            let status = match self.status().await? {
                Ok(status) => status,
                Err(stop) => return Ok(stop),
            };
            let left = Seconds(status.time_remaining_seconds);
            let Some(next) = self.record.next(self.budget) else { return Ok(self.exhausted()) };
            let has_come = next.state == TokenState::Sent || awaited == status.expires_at;
            let wait = match status.status {
                PodStatus::Provisioning => RETRY,
                // Whether it can be extended is not known.
                PodStatus::Later(_) => return Ok(Stop::Refused),
                _ if has_come => Seconds(0),
                _ => left.minus(third(left).max(LEAST_LEAD)),
            };
            if wait == Seconds(0) {
                match self.top_up(next).await? {
                    After::Continue => self.service.wait(BETWEEN_REQUESTS).await,
                    After::Retry => {
                        self.service.wait(third(left).min(RETRY).max(BETWEEN_REQUESTS)).await
                    }
                    After::AwaitEnd => return self.await_end().await,
                    After::Stop(stop) => return Ok(stop),
                }
                continue;
            }
            let (pod, end) = (self.pod, status.expires_at.as_deref().unwrap_or("its end"));
            print_note(format_args!("{pod} lives until {end}; the next token is sent in {wait}"));
            awaited = status.expires_at;
            self.service.wait(wait).await;
        }
    }

    /// Waits for the end of a pod that the service extends no more.
    async fn await_end(&self) -> Result<Stop> {
        loop {
            let left = match self.status().await? {
                Ok(status) => Seconds(status.time_remaining_seconds),
                Err(stop) => return Ok(stop),
            };
            self.service.wait(left.min(RETRY).max(BETWEEN_REQUESTS)).await;
        }
    }

    /// Why no token is next.
    fn exhausted(&self) -> Stop {
        let is_spent = self.record.sent() >= self.budget || self.record.unused() > Sat(0);
        if is_spent { Stop::BudgetSpent } else { Stop::NoTokens }
    }

    /// What the budget went into.
    fn spending(&self) -> String {
        let spent = self.record.spent();
        let others = self.record.sent().minus(spent);
        let text = format!("{spent} of {} spent", self.budget);
        match others > Sat(0) {
            true => format!("{text}, and {others} refused or refunded, which count too"),
            false => text,
        }
    }

    /// What the record's tokens are worth that have extended nothing.
    fn leftovers(&self) -> Vec<String> {
        let (unused, refused) = (self.record.unused(), self.record.refused());
        let path = self.record.path().display();
        let mut leftovers = Vec::new();
        if unused > Sat(0) {
            leftovers.push(format!("{unused} in tokens that were not sent are in {path}"));
        }
        if refused > Sat(0) {
            leftovers.push(format!(
                "{refused} in tokens that were sent, and that the service says it has not taken, are \
                 in {path}: receive them in your wallet before you use them"
            ));
        }
        leftovers
    }

    /// The status of the pod while it lives. Relays are offline now and then.
    async fn status(&self) -> Result<Result<StatusResponse, Stop>> {
        let request = of_pod("status", self.pod);
        let mut attempts = 1..STATUS_ATTEMPTS;
        loop {
            let answer = self.service.request(&request).await;
            let answer = match (answer, attempts.next()) {
                (Ok(answer), _) => answer,
                (Err(error), None) => return Err(error.into()),
                (Err(error), Some(_)) => {
                    print_note(format_args!("no status yet: {error}"));
                    self.service.wait(RETRY).await;
                    continue;
                }
            };
            match answer.response {
                Some(Response::Status(status)) if status.status == PodStatus::Ended => {
                    print_response(&Response::Status(status), self.known_hosts);
                    return Ok(Err(Stop::Ended));
                }
                Some(Response::Status(status)) => return Ok(Ok(status)),
                Some(response) => {
                    print_response(&response, self.known_hosts);
                    let code = response.error().map(|error| error.error_type);
                    if code != Some(ErrorType::InternalError) || attempts.is_empty() {
                        return Ok(Err(Stop::Refused));
                    }
                    self.service.wait(RETRY).await;
                }
                None => bail!("the status cannot be read; a newer paygress may read it"),
            }
        }
    }

    /// Sends a token that is in the record as sent.
    async fn top_up(&mut self, NextToken { token, state: was }: NextToken) -> Result<After> {
        self.record.set(&token, TokenState::Sent, None)?;
        let cashu_token = Some(token.expose().to_owned());
        let request = RequestBody { cashu_token, ..of_pod("top_up", self.pod) };
        let answer = match self.service.request(&request).await {
            Ok(answer) => answer,
            Err(error) => {
                print_note(format_args!("no answer yet: {error}; the same token is sent again"));
                return Ok(After::Retry);
            }
        };
        let Some(response) = &answer.response else {
            // It may hold a refund.
            self.record.set(&token, TokenState::Sent, Some(&answer.text))?;
            print_answer(&answer, self.format, self.known_hosts);
            return Ok(After::Stop(Stop::Refused));
        };
        let (state, after) = outcome(response, was);
        self.record.set(&token, state, refund(response))?;
        print_answer(&answer, self.format, self.known_hosts);
        Ok(after)
    }
}

#[cfg(test)]
mod tests;
