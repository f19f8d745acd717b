use super::*;
use crate::order::record::tests::{EIGHT, TWO, pod};
use paygress_core::model::refusal::Refusal;
use paygress_core::protocol::{ErrorResponse, Refund};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use tempfile::TempDir;

/// What a service does with a top-up.
enum Scripted {
    /// Extends the pod by so many seconds.
    Extends(u64),
    Error(ErrorType),
    Refunds,
    /// Nothing comes back.
    IsSilent,
}

/// A service with a clock of its own: waiting moves it.
struct FakeService {
    now: Cell<u64>,
    ends: Cell<u64>,
    script: RefCell<VecDeque<Scripted>>,
    /// When each token was sent, in turn.
    sent: RefCell<Vec<(u64, String)>>,
}

impl FakeService {
    fn new(ends: u64, script: impl IntoIterator<Item = Scripted>) -> Self {
        Self {
            now: Cell::new(0),
            ends: Cell::new(ends),
            script: RefCell::new(script.into_iter().collect()),
            sent: RefCell::default(),
        }
    }

    fn status(&self) -> Value {
        let left = self.ends.get().saturating_sub(self.now.get());
        let (status, reason) = match left {
            0 => ("ended", json!("expired")),
            _ => ("running", Value::Null),
        };
        json!({
            "type": "status_response", "pod_name": pod().as_str(), "status": status,
            "expires_at": self.ends.get().to_string(), "end_reason": reason,
            "time_remaining_seconds": left, "cpu_millicores": 1, "memory_mb": 1,
            "pod_spec_name": "basic", "ssh_host": "h", "ssh_port": 1, "ssh_username": "u",
            "refund_pending": false,
        })
    }

    fn top_up(&self, token: String) -> Result<Response, Error> {
        self.sent.borrow_mut().push((self.now.get(), token));
        let error = |code| ErrorResponse::from(&Refusal::new(code, "a test"));
        Ok(match self.script.borrow_mut().pop_front().unwrap() {
            Scripted::IsSilent => return Err(Error::NoResponse { seconds: 1 }),
            Scripted::Error(code) => Response::Error(error(code)),
            Scripted::Refunds => Response::Error(ErrorResponse {
                refund: Some(Refund {
                    refund_token: Some(Secret::new("cashuBrefund")),
                    refunded_sats: 1,
                    refund_fee_sats: 0,
                }),
                ..error(ErrorType::BackendError)
            }),
            Scripted::Extends(seconds) => {
                self.ends.set(self.ends.get().saturating_add(seconds));
                serde_json::from_value(json!({
                    "type": "top_up_response", "success": true, "pod_name": "p", "pod_npub": "p",
                    "extended_duration_seconds": seconds, "new_expires_at": "", "message": "",
                }))
                .unwrap()
            }
        })
    }

    /// Keeps the pod with these tokens and this budget, and gives the moments at which they were
    /// sent.
    async fn extend(&self, record: &mut Record, budget: u64) -> (Stop, Vec<u64>) {
        let (stop, ..) = self.extend_to_end(record, budget).await;
        (stop, self.sent.borrow().iter().map(|(at, _)| *at).collect())
    }

    /// Gives what the budget went into, and what is left in the record.
    async fn extend_to_end(&self, record: &mut Record, budget: u64) -> (Stop, String, Vec<String>) {
        let name = pod();
        let mut extension = Extension {
            service: self,
            record,
            known_hosts: &KnownHosts::beside(Path::new("no-directory/key")),
            pod: name.as_str(),
            budget: Sat(budget),
            format: Format::Text,
        };
        let stop = extension.run().await.unwrap();
        (stop, extension.spending(), extension.leftovers())
    }
}

impl Service for FakeService {
    async fn request(&self, request: &RequestBody) -> Result<Answer, Error> {
        let response = match &request.cashu_token {
            None => serde_json::from_value(self.status()).unwrap(),
            Some(token) => self.top_up(token.clone())?,
        };
        let text = Secret::new(response.to_json());
        Ok(Answer { text, response: Some(response), from_pods: Vec::new() })
    }

    async fn wait(&self, time: Seconds) {
        self.now.set(self.now.get().saturating_add(time.0));
    }
}

fn record(directory: &TempDir, tokens: &[&str]) -> Record {
    let mut record = Record::open(&directory.path().join("record"), &pod()).unwrap();
    record.add(&tokens.join("\n")).unwrap();
    record
}

#[tokio::test]
async fn a_pod_is_extended_in_its_last_third_until_the_budget_is_spent() {
    let directory = tempfile::tempdir().unwrap();
    let service = FakeService::new(900, [Scripted::Extends(600), Scripted::Extends(300)]);
    let mut record = record(&directory, &[EIGHT, TWO]);
    let (stop, sent) = service.extend(&mut record, 10).await;
    // With 300 of 900 s left; then, a second later, with 299 of 899 s.
    assert_eq!((stop, sent), (Stop::BudgetSpent, vec![600, 1_201]));
    assert_eq!((record.spent(), record.unused()), (Sat(10), Sat(0)));
}

#[tokio::test]
async fn a_token_is_sent_a_minute_before_the_end_at_the_latest() {
    let directory = tempfile::tempdir().unwrap();
    let service = FakeService::new(90, [Scripted::Extends(10)]);
    let (stop, sent) = service.extend(&mut record(&directory, &[TWO]), 100).await;
    assert_eq!((stop, sent), (Stop::NoTokens, vec![30]));
}

#[tokio::test]
async fn the_budget_is_never_exceeded() {
    let directory = tempfile::tempdir().unwrap();
    let service = FakeService::new(60, [Scripted::Extends(10)]);
    let mut record = record(&directory, &[EIGHT, TWO]);
    let (stop, sent) = service.extend(&mut record, 9).await;
    assert_eq!((stop, sent.len()), (Stop::BudgetSpent, 1));
    assert_eq!((record.spent(), record.unused()), (Sat(8), Sat(2)));
    // Of the record, not of the run.
    let again = service.extend(&mut record, 9).await;
    assert_eq!((again.0, again.1.len()), (Stop::BudgetSpent, 1));
}

#[tokio::test]
async fn without_an_answer_the_same_token_is_sent_again_also_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let service =
        FakeService::new(600, [Scripted::IsSilent, Scripted::Error(ErrorType::TokenPending)]);
    {
        let mut record = record(&directory, &[TWO, EIGHT]);
        let mut extension = Extension {
            service: &service,
            record: &mut record,
            known_hosts: &KnownHosts::beside(Path::new("no-directory/key")),
            pod: "ssh-pod-abcdefghij",
            budget: Sat(10),
            format: Format::Text,
        };
        let next = extension.record.next(Sat(10)).unwrap();
        assert_eq!(extension.top_up(next).await.unwrap(), After::Retry);
        let next = extension.record.next(Sat(10)).unwrap();
        assert_eq!(extension.top_up(next).await.unwrap(), After::Retry);
        // The process ends here.
    }
    service.script.borrow_mut().extend([Scripted::Extends(600), Scripted::Extends(600)]);
    let mut record = record(&directory, &[]);
    let (stop, _) = service.extend(&mut record, 10).await;
    let sent: Vec<String> = service.sent.borrow().iter().map(|(_, token)| token.clone()).collect();
    assert_eq!(sent, [TWO, TWO, TWO, EIGHT]);
    assert_eq!((stop, record.spent()), (Stop::BudgetSpent, Sat(10)));
}

#[tokio::test]
async fn a_refused_token_is_left_out_and_a_refund_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let script = [Scripted::Error(ErrorType::TokenAlreadySpent), Scripted::Refunds];
    let service = FakeService::new(60, script);
    let mut record = record(&directory, &[TWO, EIGHT]);
    let (stop, sent) = service.extend(&mut record, 100).await;
    assert_eq!((stop, sent.len()), (Stop::NoTokens, 2));
    assert_eq!((record.spent(), record.unused()), (Sat(0), Sat(0)));
    let stored = std::fs::read_to_string(record.path()).unwrap();
    assert!(stored.contains("cashuBrefund"), "a refund is in the record");
}

#[test]
fn a_token_that_is_spent_was_used_if_it_was_sent_before() {
    let refusal = Refusal::new(ErrorType::TokenAlreadySpent, "a test");
    let spent = Response::Error(ErrorResponse::from(&refusal));
    for (was, state) in
        [(TokenState::Sent, TokenState::Used), (TokenState::Unused, TokenState::Refused)]
    {
        assert_eq!(outcome(&spent, was), (state, After::Continue), "{was:?}");
    }
}

#[test]
fn what_a_code_of_a_later_version_means_for_a_token_is_not_guessed() {
    let later: ErrorType = serde_json::from_value(json!("too_hot")).unwrap();
    let answer = Response::Error(ErrorResponse::from(&Refusal::new(later, "a test")));
    for was in [TokenState::Unused, TokenState::Sent] {
        assert_eq!(outcome(&answer, was), (TokenState::Sent, After::Stop(Stop::Refused)));
    }
}

/// Of its tokens a service may say what it likes.
#[tokio::test]
async fn a_service_that_lies_gets_no_more_than_the_budget() {
    let answers: [fn() -> Scripted; 3] = [
        || Scripted::Error(ErrorType::InvalidToken),
        || Scripted::Error(ErrorType::TokenAlreadySpent),
        || Scripted::Refunds,
    ];
    for answer in answers {
        let directory = tempfile::tempdir().unwrap();
        let service = FakeService::new(600, std::iter::repeat_with(answer).take(2));
        let mut record = record(&directory, &[EIGHT, TWO]);
        let (stop, sent) = service.extend(&mut record, 9).await;
        assert_eq!((stop, sent.len()), (Stop::BudgetSpent, 1));
        assert_eq!((record.sent(), record.unused()), (Sat(8), Sat(2)));
        // Nothing more is sent.
        let (stop, report, _) = service.extend_to_end(&mut record, 9).await;
        let spending = "0 sat of 9 sat spent, and 8 sat refused or refunded, which count too";
        assert_eq!((stop, report.as_str()), (Stop::BudgetSpent, spending));
        println!("with a budget of 9 sat it has had {}", record.sent());
    }
}

#[tokio::test]
async fn a_service_that_is_busy_is_tried_until_the_pod_ends() {
    let directory = tempfile::tempdir().unwrap();
    let busy = || Scripted::Error(ErrorType::ResourceUnavailable);
    let service = FakeService::new(60, std::iter::repeat_with(busy).take(1_000));
    let mut busy = record(&directory, &[TWO]);
    let (stop, sent) = service.extend(&mut busy, 2).await;
    println!("a token was sent {} times in a minute", sent.len());
    assert!(stop == Stop::Ended && (2..60).contains(&sent.len()), "{sent:?}");
}

/// The service has it: it may be redeemed whatever was answered.
#[tokio::test]
async fn a_token_that_was_sent_is_not_called_unused_when_the_pod_has_ended() {
    for (code, expected) in [
        (ErrorType::LeaseExpired, Stop::Ended),
        (ErrorType::NotOwner, Stop::Refused),
        (ErrorType::NotFound, Stop::Refused),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let service = FakeService::new(61, [Scripted::Error(code)]);
        let mut record = record(&directory, &[TWO, EIGHT]);
        let (stop, report, leftovers) = service.extend_to_end(&mut record, 10).await;
        assert_eq!(stop, expected, "{code:?}");
        assert_eq!(service.sent.borrow().len(), 1, "{code:?}: no other token is sent");
        assert_eq!((record.sent(), record.unused()), (Sat(2), Sat(8)), "{code:?}");
        assert_eq!(report, "0 sat of 10 sat spent, and 2 sat refused or refunded, which count too");
        let [unused, refused]: [String; 2] = leftovers.try_into().unwrap();
        assert!(unused.starts_with("8 sat in tokens that were not sent are in "), "{unused}");
        assert!(refused.starts_with("2 sat in tokens that were sent, and that "), "{refused}");
        let error = ErrorResponse::from(&Refusal::new(code, "a test"));
        let (state, _) = outcome(&Response::Error(error), TokenState::Sent);
        assert_eq!(state, TokenState::Sent, "if an answer was lost before, it may have been used");
    }
}
