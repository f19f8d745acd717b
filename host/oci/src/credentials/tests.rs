use super::*;
use paygress_core::error_chain;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

struct Fixture {
    credentials: Credentials,
    file: tempfile::NamedTempFile,
}

fn fixture(text: &str, helpers: CredentialHelpers) -> Result<Fixture, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Ok(Fixture { credentials: Credentials::new(Some(file.path()), helpers)?, file })
}

fn file(text: &str) -> Result<Fixture, Error> {
    fixture(text, CredentialHelpers::Refuse)
}

impl Fixture {
    /// `None`, the user and password, or `token` and the identity token.
    fn get(&self, repository: &str) -> Result<Option<String>, Error> {
        let (registry, repository) = repository.split_once('/').unwrap();
        let helpers = self.credentials.helpers;
        let found = match lookup(self.file.path(), helpers, registry, repository)? {
            Lookup::Nothing => None,
            Lookup::Credential(credential) => Some(credential),
            Lookup::Helper(helper) => block_on(self.credentials.run_helper(registry, &helper))?,
        };
        Ok(found.map(|credential| match credential {
            Credential::Basic(pair) => {
                String::from_utf8(BASE64_STANDARD.decode(pair.as_bytes()).unwrap()).unwrap()
            }
            Credential::IdentityToken(token) => format!("token {}", token.as_str()),
        }))
    }

    fn found(&self, repository: &str) -> String {
        self.get(repository).unwrap().unwrap_or_default()
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future)
}

#[test]
fn docker_files_are_read() {
    let file = file(
        r#"{"auths": {"r.example:5000": {"auth": "dTpw"}, "https://index.docker.io/v1/": {"auth": "dTpx"}}}"#,
    )
    .unwrap();
    assert_eq!(file.found("r.example:5000/a"), "u:p");
    assert_eq!(file.found("registry-1.docker.io/a"), "u:q");
    assert_eq!(file.get("r.example/a").unwrap(), None);
}

#[test]
fn every_form_of_an_entry_is_read() {
    for (entry, expected) in [
        (r#"{"auth": "dTpw"}"#, "u:p"),
        (r#"{"auth": "dTpwdw"}"#, "u:pw"), // without padding
        (r#"{"auth": "dTo="}"#, "u:"),
        (r#"{"username": "u", "password": "p:w"}"#, "u:p:w"),
        (r#"{"auth": "dTpw", "username": "u", "password": "p", "email": "x"}"#, "u:p"),
        (r#"{"auth": "", "username": "u", "password": "p"}"#, "u:p"),
        (r#"{"auth": "dTpw", "identitytoken": "t"}"#, "token t"),
        (r#"{"identitytoken": "t"}"#, "token t"),
        (r#"{"auth": ""}"#, ""),
        ("{}", ""),
    ] {
        let file = file(&format!(r#"{{"auths": {{"r.example": {entry}}}}}"#)).unwrap();
        assert_eq!(file.found("r.example/a"), expected, "{entry}");
    }
}

#[test]
fn the_most_specific_entry_counts() {
    let file = file(
        r#"{"auths": {
            "r.example/team/app": {"auth": "dTph"}, "r.example/team": {"auth": "dTp0"}, "r.example": {"auth": "dTpy"},
            "https://s.example/v2/": {"auth": "dTpz"}, "https://t.example/team": {"auth": "dTp1"},
            "docker.io/team": {"auth": "dTpk"}
        }}"#,
    )
    .unwrap();
    for (repository, expected) in [
        ("r.example/team/app", "u:a"),
        ("r.example/team/app/part", "u:a"),
        ("r.example/team/application", "u:t"),
        ("r.example/teams", "u:r"),
        ("s.example/v2/x", "u:s"),
        ("registry-1.docker.io/team/x", "u:d"),
        ("registry-1.docker.io/other", ""),
        ("t.example/team", "u:u"),
    ] {
        assert_eq!(file.found(repository), expected, "{repository}");
    }
}

#[test]
fn credentials_for_a_part_of_a_registry_are_not_for_the_rest_of_it() {
    let file = file(
        r#"{"auths": {"r.example/team": {"auth": "dTpw"}, "s.example/v2/": {"auth": "dTpx"}, "https://t.example/team": {"auth": "dTpw"}}}"#,
    )
    .unwrap();
    assert_eq!(file.get("r.example/other").unwrap(), None);
    assert_eq!(file.get("t.example/other").unwrap(), None);
    assert_eq!(file.found("s.example/a"), "u:q");
}

#[test]
fn helpers_are_not_run() {
    let file = file(
        r#"{"auths": {"a.example": {}}, "credsStore": "desktop", "credHelpers": {"b.example": "pass"}}"#,
    )
    .unwrap();
    for (repository, helper) in [("a.example/x", "desktop"), ("b.example/x", "pass")] {
        let error = file.get(repository).unwrap_err();
        assert!(matches!(error, Error::HelperNotAllowed { .. }));
        assert!(error.to_string().contains(helper));
    }
    assert_eq!(file.get("c.example/x").unwrap(), None);
}

/// Helpers are found in `PATH`, so this test runs itself again with a `PATH` of its own.
#[test]
fn helpers_are_run_if_allowed() {
    const MARKER: &str = "PAYGRESS_TEST_CREDENTIAL_HELPERS";
    if let Some(directory) = std::env::var_os(MARKER) {
        check_helpers();
        return block_on(check_bounds(Path::new(&directory)));
    }
    let directory = tempfile::tempdir().unwrap();
    for (name, script) in [
        ("good", r#"read server; echo "{\"Username\":\"u\",\"Secret\":\"$server\"}""#),
        ("token", r#"cat >/dev/null; echo '{"Username":"<token>","Secret":"t"}'"#),
        ("none", "cat >/dev/null; echo credentials not found in native keychain; exit 1"),
        ("broken", "cat >/dev/null; echo hunter2; echo hunter2 >&2; exit 1"),
        ("strange", "cat >/dev/null; echo hunter2"),
        ("hang", r#"sleep 600 & echo "$$ $! ." > "$(dirname "$0")/processes"; wait"#),
        ("endless", "while :; do echo hunter2; done"),
        (
            "alone",
            r#"lock="$(dirname "$0")/lock"; mkdir "$lock" || exit 1; sleep 0.05; rmdir "$lock"
               echo '{"Username":"u","Secret":"p"}'"#,
        ),
    ] {
        let path = directory.path().join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let again = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "credentials::tests::helpers_are_run_if_allowed"])
        .env("PATH", path)
        .env(MARKER, directory.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && output.contains("1 passed"), "{output}");
}

fn check_helpers() {
    let file = fixture(
        r#"{
            "auths": {"a.example": {"auth": "dTpw"}, "b.example": {"auth": "dTpw"}},
            "credHelpers": {
                "a.example": "token", "broken.example": "broken", "strange.example": "strange",
                "absent.example": "absent", "none.example": "none", "hub.example": "good",
                "index.docker.io": "good"
            },
            "credsStore": "none"
        }"#,
        CredentialHelpers::Run,
    )
    .unwrap();
    assert_eq!(file.found("a.example/x"), "token t", "a helper is preferred, as by docker");
    assert_eq!(file.found("b.example/x"), "u:p", "what is in the file needs no store");
    assert_eq!(file.found("hub.example/x"), "u:hub.example");
    assert_eq!(file.found("registry-1.docker.io/x"), "u:https://index.docker.io/v1/");
    assert_eq!(file.get("none.example/x").unwrap(), None);
    assert_eq!(file.get("other.example/x").unwrap(), None, "the store has nothing");
    for (registry, expected) in [
        ("broken.example", HelperError::Failed),
        ("strange.example", HelperError::Malformed),
        ("absent.example", HelperError::NotRun),
    ] {
        let error = file.get(&format!("{registry}/x")).unwrap_err();
        assert!(
            matches!(&error, Error::Helper { source, .. } if *source == expected),
            "{registry}: {error:?}"
        );
        assert!(!format!("{error:?} {}", error_chain(&error)).contains("hunter2"));
    }
}

async fn check_bounds(directory: &Path) {
    let runner = HelperRunner::default();
    let hanging = tokio::spawn({
        let runner = runner.clone();
        async move { runner.run("hang", "a.example").await.map(drop) }
    });
    let written = || std::fs::read_to_string(directory.join("processes")).unwrap_or_default();
    until("the helper runs", || written().ends_with(".\n")).await;
    let processes: Vec<u32> =
        written().split_whitespace().filter_map(|number| number.parse().ok()).collect();
    assert!(processes.len() == 2 && processes.iter().all(|process| is_running(*process)));
    // Another registry has its own.
    assert!(runner.run("good", "b.example").await.unwrap().is_some());
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    until("it is killed, and what it has started", || {
        !processes.iter().any(|process| is_running(*process))
    })
    .await;

    let limit = Duration::from_millis(200);
    let hurried = HelperRunner::with_timeout(limit);
    let started = Instant::now();
    let error = hurried.run("hang", "a.example").await.unwrap_err();
    assert_eq!(error, HelperError::TimedOut { limit });
    let error = runner.run("endless", "a.example").await.unwrap_err();
    assert_eq!(error, HelperError::TooLarge { limit: 65_536 });
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());

    let alone = || runner.run("alone", "a.example");
    for found in <[_; 4]>::from(tokio::join!(alone(), alone(), alone(), alone())) {
        assert!(found.unwrap().is_some(), "each waits for the one before");
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process is there, and not only its exit status.
fn is_running(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

#[test]
fn wrong_files_are_named_and_not_quoted() {
    for wrong in [
        r#"{"auths": {"a.example": "hunter2"}}"#,
        r#"{"auths": {"a.example": {"auth": "aHVudGVyMg=="}}}"#,
        r#"{"auths": {"a.example": {"auth": "aHVudGVyMg==!"}}}"#,
        r#"{"auths": {"a.example": {"auth": "OmF1aHVudGVy"}}}"#,
        r#"{"auths": {"a.example": {"auth": "dTpw", "username": "u", "password": "hunter2"}}}"#,
        r#"{"credHelpers": {"a.example": "../hunter"}}"#,
        "hunter2",
    ] {
        let error = error_chain(&file(wrong).err().unwrap());
        assert!(
            error.contains("auth file") && !error.contains("hunter2") && !error.contains("aHVud"),
            "{error}"
        );
    }
    let missing = Credentials::new(Some(Path::new("/nonexistent")), CredentialHelpers::Refuse);
    assert!(error_chain(&missing.err().unwrap()).contains("/nonexistent"));
}

#[test]
fn a_rotated_file_is_read_again() {
    let file = file(r#"{"auths": {"r.example": {"auth": "dTpw"}}}"#).unwrap();
    assert_eq!(file.found("r.example/a"), "u:p");
    std::fs::write(file.file.path(), r#"{"auths": {"r.example": {"auth": "dTpx"}}}"#).unwrap();
    assert_eq!(file.found("r.example/a"), "u:q");
    std::fs::write(file.file.path(), "").unwrap();
    assert!(matches!(file.get("r.example/a"), Err(Error::AuthFile { .. })));
}
