use super::*;
use crate::limits;
use crate::model::host_key::HostKey;
use crate::model::ids::LeaseId;
use crate::model::lease::{EndReason, Lease, LeaseState};
use crate::model::order::{Order, OrderState, Purchase, RefundEnd, State};
use crate::model::order_state::{RefundCause, RefundOutcome};
use crate::model::refusal::{ErrorType, Refusal};
use crate::model::run::Run;
use crate::model::secret::Secret;
use crate::model::units::{Sat, Seconds, UnixTime};
use crate::testing;
use proptest::prelude::*;
use serde_json::json;

fn code(text: &str) -> ErrorType {
    Request::parse(text).unwrap_err().code
}

#[test]
fn a_spawn_reads_with_all_and_with_no_options() {
    let Request::Buy { token, purchase: Purchase::Spawn { image, tier, username, wanted, .. }, password, notices } =
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
    assert!(!notices, "existing clients take any message for their answer");
    assert!(matches!(
        Request::parse(r#"{"cashu_token":"cashuBx"}"#),
        Ok(Request::Buy { purchase: Purchase::Spawn { .. }, .. })
    ));
}

#[test]
fn notices_are_for_those_who_want_them() {
    for (field, wanted) in [
        ("", false),
        (r#","notices":null"#, false),
        (r#","notices":false"#, false),
        (r#","notices":true"#, true),
    ] {
        for pod in ["", r#","pod_name":"ssh-pod-a""#] {
            let text = format!(r#"{{"cashu_token":"cashuBx"{field}{pod}}}"#);
            let Ok(Request::Buy { notices, .. }) = Request::parse(&text) else { panic!("{text}") };
            assert_eq!(notices, wanted, "{text}");
        }
    }
    let refusal = Request::parse(r#"{"cashu_token":"a","notices":"yes"}"#).unwrap_err();
    assert_eq!(refusal.message, "notices must be a boolean");
}

#[test]
fn what_runs_is_the_server_alone_or_beside_it_the_images_own_program() {
    let parsed = |run: &serde_json::Value| {
        Request::parse(&json!({"cashu_token": "cashuBx", "run": run}).to_string())
    };
    for (run, expected) in [
        (json!(null), Run::Ssh),
        (json!(""), Run::Ssh),
        (json!("ssh"), Run::Ssh),
        (json!("image"), Run::Image),
    ] {
        let Ok(Request::Buy { purchase, .. }) = parsed(&run) else { panic!("{run}") };
        assert_eq!(purchase.run(), expected, "{run}");
    }
    let text = "run must be ssh or image, or be left out";
    let expected = Refusal::new(ErrorType::InvalidRequest, text);
    for wrong in ["IMAGE", "entrypoint", " image", "cashuBsecret"] {
        assert_eq!(parsed(&json!(wrong)), Err(expected.clone()), "{wrong}");
    }
    for wrong in [json!(true), json!(1), json!(["image"])] {
        assert_eq!(parsed(&wrong).unwrap_err().code, ErrorType::InvalidRequest, "{wrong}");
    }
}

#[test]
fn the_reason_of_an_end_is_in_every_response_about_it() {
    let reason = Some(EndReason::OutOfMemory);
    let order = testing::order(testing::spawn(), State::Active).unwrap();
    let mut lease = testing::lease(LeaseId::of(&order.id), 0, 900);
    lease.end = reason;
    let running = status(&lease, &[], "host", UnixTime(1));
    assert_eq!(running.end_reason, None, "it is being ended");
    lease.state = LeaseState::Ended;
    let refusal =
        Refusal::new(ErrorType::LeaseExpired, "over").with_end_reason(EndReason::OutOfMemory);
    for response in [
        Response::from(status(&lease, &[], "host", UnixTime(1))),
        Response::from(stopped(&lease.pod(), &[], reason)),
        Response::from(&refusal),
        Response::from(end_notice(&lease, UnixTime(1))),
    ] {
        let json = response.to_json();
        assert!(json.contains(r#""end_reason":"out-of-memory""#), "{json}");
        assert_eq!(serde_json::from_str::<Response>(&json).unwrap(), response, "{json}");
        assert!(is_response(&json), "two services would answer each other: {json}");
    }
    let json = Response::from(stopped(&lease.pod(), &[], None)).to_json();
    assert!(!json.contains("end_reason"), "{json}");
}

#[test]
fn a_notice_is_no_answer_that_somebody_waits_for() {
    let order = testing::order(testing::spawn(), State::Active).unwrap();
    let lease = testing::lease(LeaseId::of(&order.id), 0, 900);
    let notice = end_notice(&lease, UnixTime(840));
    assert_eq!((notice.time_remaining_seconds, notice.end_reason), (60, None));
    assert!(notice.message.contains("pod_name") && notice.message.contains("60 s"));
    let notice = Response::from(notice);
    assert!(!notice.is_paid() && !notice.holds_refund() && notice.error().is_none());
}

#[test]
fn a_token_is_read_however_it_was_passed_on() {
    for text in [
        r#"{"cashu_token":"CASHU:cashuBx+/"}"#,
        r#"{"cashu_token":"https://wallet.example/#token=cashuBx-_"}"#,
        r#"{"cashu_token":"`cashuB\nx%2B%2F`"}"#,
    ] {
        let Ok(Request::Buy { token: Some(token), .. }) = Request::parse(text) else {
            panic!("{text}")
        };
        assert_eq!(token.expose(), "cashuBx-_", "{text}");
    }
}

#[test]
fn the_examples_read_as_what_they_are_named_for() {
    let spawn = Request::parse(include_str!("../../../../examples/orders/spawn.json")).unwrap();
    assert!(matches!(
        spawn,
        Request::Buy { purchase: Purchase::Spawn { wanted: Some(Seconds(3_600)), .. }, .. }
    ));
    let with_key =
        Request::parse(include_str!("../../../../examples/orders/spawn-with-key.json")).unwrap();
    assert!(matches!(
        with_key,
        Request::Buy { purchase: Purchase::Spawn { public_key: Some(_), .. }, password: None, .. }
    ));
    let top_up = Request::parse(include_str!("../../../../examples/orders/top-up.json")).unwrap();
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
            matches!(Request::parse(text), Ok(Request::Buy { purchase: Purchase::TopUp { pod }, .. }) if pod.as_str() == "ssh-pod-a"),
            "{text}"
        );
    }
    assert!(
        matches!(Request::parse(r#"{"type":"stop","pod_name":"ssh-pod-a"}"#), Ok(Request::Stop { pod }) if pod.as_str() == "ssh-pod-a")
    );
    for text in [
        r#"{"pod_name":"ssh-pod-a"}"#,
        r#"{"type":"status","pod_name":"ssh-pod-a","cashu_token":"cashuBx"}"#,
    ] {
        assert!(
            matches!(Request::parse(text), Ok(Request::Status { pod }) if pod.as_str() == "ssh-pod-a"),
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
    let with = |state: OrderState| {
        let mut order = testing::order(testing::spawn(), State::Received).unwrap();
        order.state = state;
        order
    };
    // A token and a password are there, and not sent.
    let received = testing::order(testing::spawn(), State::Received).unwrap();
    assert!(received.state.token().is_some() && received.state.password().is_some());
    assert_eq!(refused(&received, &refusal), Response::from(&refusal));
    let mut refund = testing::refund();
    (refund.amount, refund.fee) = (Sat(7), Sat(1));
    refund.outcome = RefundOutcome::Waiting(Secret::new("cashuBx"));
    let refunded = |refund| {
        let sale = testing::paid(&testing::spawn()).into();
        let (refusal, expires_at) = (refusal.clone(), None);
        let cause = RefundCause::NotProvisioned { refusal, expires_at, added: None };
        with(OrderState::Refunded { sale, cause, refund })
    };
    let order = refunded(refund.clone());
    let response = refused(&order, &refusal);
    let json = sorted(&response);
    assert_eq!(
        (&json["refund_token"], &json["refunded_sats"], &json["refund_fee_sats"]),
        (&json!("cashuBx"), &json!(7), &json!(1))
    );
    assert!(json["message"].as_str().unwrap().contains("the mint's fee of 1 sat"), "{json}");
    assert!(!json.to_string().contains("cashuBsecret") && !json.to_string().contains("hunter22"));
    assert!(!format!("{response:?}").contains("cashuBx"), "a token is in Debug");
    refund.outcome = RefundOutcome::Ended(RefundEnd::Redeemed);
    let order = refunded(refund);
    let json = refused(&order, &refusal).to_json();
    assert!(json.contains(r#""refund_token":null"#), "{json}");
    assert_eq!(serde_json::from_str::<Response>(&json).unwrap(), refused(&order, &refusal));
}

#[test]
fn several_refunds_that_wait_are_summed_up() {
    let order = |outcome: RefundOutcome| {
        let mut refund = testing::refund();
        (refund.amount, refund.fee, refund.outcome) = (Sat(9), Sat(0), outcome);
        let sale = testing::paid(&testing::spawn()).into();
        let (due, expires_at) = (Sat(9), UnixTime(1));
        let (refusal, added, served_until) = (None, None, None);
        let cause = RefundCause::LeaseEnded { due, expires_at, refusal, added, served_until };
        let mut order = testing::order(testing::spawn(), State::Received).unwrap();
        order.state = OrderState::Refunded { sale, cause, refund };
        order
    };
    let waiting = order(RefundOutcome::Waiting(Secret::new("cashuBx")));
    let redeemed = order(RefundOutcome::Ended(RefundEnd::Redeemed));
    let message = |orders: &[&Order]| stopped(&waiting.pod(), orders, None).message;
    assert_eq!(message(&[]), "stopped; nothing is paid back");
    assert_eq!(
        message(&[&redeemed, &waiting]),
        "stopped; the refund of 9 sat was redeemed; refund_token gives 9 sat back; redeem it soon"
    );
    assert_eq!(
        message(&[&waiting, &waiting]),
        "stopped; refunded 18 sat in 2 tokens; receive them soon"
    );
    assert_eq!(
        message(&[&waiting, &redeemed, &waiting]),
        "stopped; refunded 18 sat in 2 tokens; receive them soon; the refund of 9 sat was redeemed"
    );
}

#[test]
fn only_a_refund_that_nobody_has_redeemed_is_one_that_a_response_holds() {
    let order = |outcome: RefundOutcome| {
        let mut order = testing::order(testing::spawn(), State::Refunded).unwrap();
        if let OrderState::Refunded { refund, .. } = &mut order.state {
            refund.outcome = outcome;
        }
        order
    };
    let active = testing::order(testing::spawn(), State::Active).unwrap();
    let waiting = order(RefundOutcome::Waiting(Secret::new("cashuBx")));
    let redeemed = order(RefundOutcome::Ended(RefundEnd::Redeemed));
    let lease = testing::lease(LeaseId::of(&active.id), 0, 9);
    let refusal = Refusal::new(ErrorType::ProvisioningError, "no");
    for (order, holds) in [(&active, false), (&redeemed, false), (&waiting, true)] {
        let state = order.state();
        let of_status = Response::from(status(&lease, &[order], "host", UnixTime(1)));
        assert_eq!(of_status.holds_refund(), holds, "{state:?}");
        assert_eq!(Response::from(stopped(&lease.pod(), &[order], None)).holds_refund(), holds);
        assert_eq!(refused(order, &refusal).holds_refund(), holds, "{state:?}");
    }
    let login = access(&lease, None, UnixTime(9), "host", None);
    assert!(!Response::from(login).holds_refund());
}

#[test]
fn a_login_says_how_to_know_the_pod_while_it_runs() {
    let id = LeaseId::parse("abcdefghij").unwrap();
    let unknown = Response::from(access(&testing::lease(id, 0, 9), None, UnixTime(9), "h", None));
    for field in ["ssh_host_keys", "known_hosts", "root"] {
        assert!(sorted(&unknown).get(field).is_none(), "{field} is not known");
    }
    let key = HostKey::parse(testing::HOST_KEY).unwrap();
    let mut lease = testing::lease(LeaseId::parse("abcdefghij").unwrap(), 0, 9);
    (lease.port, lease.root) = (Some(20_427), Some(false));
    lease.host_keys = vec![key.clone(), key.clone()];
    let line = format!("[host]:20427 {key}");
    let login = access(&lease, None, UnixTime(9), "host", Some("thanks"));
    let instructions = login.instructions.join("\n");
    assert!(instructions.contains(&format!("{} (ssh-ed25519)", key.fingerprint())));
    let login = Response::from(login);
    let running = Response::from(status(&lease, &[], "host", UnixTime(1)));
    for response in [&login, &running] {
        let json = sorted(response);
        assert_eq!(json["ssh_host_keys"], json!([key.as_str(), key.as_str()]));
        assert_eq!(json["known_hosts"], json!(format!("{line}\n{line}")));
        assert_eq!(json["root"], json!(false));
        assert_eq!(serde_json::from_str::<Response>(&response.to_json()).unwrap(), *response);
    }
    let without = Lease { port: None, ..lease.clone() };
    let json = sorted(&access(&without, None, UnixTime(9), "host", None));
    assert_eq!((&json["ssh_host"], &json["ssh_port"]), (&json!("ssh-pod-abcdefghij"), &json!(22)));
    assert_eq!(
        json["known_hosts"],
        json!(format!("ssh-pod-abcdefghij {key}\nssh-pod-abcdefghij {key}"))
    );
    lease.state = LeaseState::Ended;
    let ended = sorted(&Response::from(status(&lease, &[], "host", UnixTime(1))));
    assert!(ended.get("known_hosts").is_none() && ended.get("ssh_host_keys").is_none(), "{ended}");
}

#[test]
fn who_sends_a_key_gets_no_password() {
    let text =
        r#"{"cashu_token":"cashuBx","ssh_public_key":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"}"#;
    assert!(matches!(Request::parse(text), Ok(Request::Buy { password: None, .. })));
    let with_password = text.replace('}', r#","ssh_password":"a good password"}"#);
    assert!(matches!(Request::parse(&with_password), Ok(Request::Buy { password: Some(_), .. })));
}

#[test]
fn a_duration_is_a_whole_number_however_it_is_written() {
    for (written, minutes) in [
        ("60", 60),
        ("1.0", 1),
        ("6e1", 60),
        (r#""1""#, 1),
        (r#"" 60 ""#, 60),
        (r#""1.0""#, 1),
        ("5256000", 5_256_000),
    ] {
        let text = format!(r#"{{"cashu_token":"a","duration_minutes":{written}}}"#);
        let Ok(Request::Buy { purchase: Purchase::Spawn { wanted, .. }, .. }) =
            Request::parse(&text)
        else {
            panic!("{text} is not read")
        };
        assert_eq!(wanted, Some(Seconds(minutes * 60)), "{text}");
    }
    for written in [
        "-1",
        "-1.0",
        "1.5",
        "0",
        "5256001",
        "1e99",
        r#""-1""#,
        r#""1.5""#,
        r#""soon""#,
        "true",
        "[1]",
    ] {
        let text = format!(r#"{{"cashu_token":"a","duration_minutes":{written}}}"#);
        let refusal = Request::parse(&text).unwrap_err();
        assert_eq!(
            refusal.message,
            "duration_minutes must be a whole number from 1 to 5256000, or be left out",
            "{text}"
        );
    }
    for left_out in ["null", r#""""#] {
        let text = format!(r#"{{"cashu_token":"a","duration_minutes":{left_out}}}"#);
        assert!(Request::parse(&text).is_ok(), "{text}");
    }
}

#[test]
fn a_field_of_another_type_is_named_with_what_belongs_there() {
    for field in [
        "type",
        "cashu_token",
        "pod_image",
        "ssh_username",
        "ssh_password",
        "ssh_public_key",
        "tier",
        "pod_spec_id",
        "pod_name",
        "pod_npub",
    ] {
        for value in ["7", "true", "[]", "{}", "-1.5"] {
            let text = format!(r#"{{"{field}":{value}}}"#);
            let refusal = Request::parse(&text).unwrap_err();
            assert_eq!(refusal.message, format!("{field} must be a string"), "{text}");
        }
        let twice = format!(r#"{{"{field}":"a","{field}":"b"}}"#);
        let refusal = Request::parse(&twice).unwrap_err();
        assert_eq!(refusal.message, format!("{field} is there twice; send it once"));
    }
}

#[test]
fn what_is_no_request_is_answered_with_an_example() {
    for text in ["", "hi", "cashuBo2FteBtodHRw", "[]", "7", r#""cashuBx""#, "{", r#"{} {}"#] {
        let refusal = Request::parse(text).unwrap_err();
        assert_eq!(refusal.code, ErrorType::InvalidRequest, "{text}");
        assert!(
            refusal.message.ends_with(r#"send an object such as {"cashu_token": "cashuB…"}"#),
            "{text}: {}",
            refusal.message
        );
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_request() {
    assert!(matches!(
        Request::parse("\u{feff}{\"cashu_token\":\"cashuBx\"}"),
        Ok(Request::Buy { token: Some(token), .. }) if token.expose() == "cashuBx"
    ));
    assert!(Request::parse("\u{feff}\u{feff}{}").is_err(), "one mark, no more");
}

#[test]
fn what_cannot_be_read_is_not_quoted() {
    for text in [
        r#""cashuBsecret""#,
        r#"{"duration_minutes":"cashuBsecret"}"#,
        r#"{"duration_minutes":"x, expected cashuBsecret at line 1"}"#,
        r#"{"tier":{"cashuBsecret":1}}"#,
        r#"{"cashuBsecret":nonsense}"#,
        r#"["cashuBsecret"]"#,
    ] {
        assert!(!format!("{:?}", Request::parse(text).unwrap_err()).contains("secret"), "{text}");
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
            prop_assert!(username.as_str().bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-'));
        }
    }
}
