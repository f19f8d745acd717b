//! What the checks have shown: a line each for people, or JSON for programs.

use paygress_core::sanitize::plain;
use serde::Serialize;
use std::fmt;
use std::process::ExitCode;

/// What is kept of a text: much of it is of servers.
const TEXT_CHARS: usize = 600;

/// What a check has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Ok,
    /// Pods are sold all the same.
    Warn,
    Fail,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What checks are about, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    Configuration,
    Host,
    Policies,
    Cluster,
    Pods,
    Gateway,
    Mints,
    Relays,
}

impl Group {
    fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Host => "host",
            Self::Policies => "policies",
            Self::Cluster => "cluster",
            Self::Pods => "pods",
            Self::Gateway => "gateway",
            Self::Mints => "mints",
            Self::Relays => "relays",
        }
    }
}

/// One or more checks of the same thing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) group: Group,
    pub(super) name: &'static str,
}

impl Area {
    pub(super) const fn new(group: Group, name: &'static str) -> Self {
        Self { group, name }
    }

    fn check(self, outcome: Outcome, text: &str, remedy: Option<&str>) -> Check {
        let remedy = remedy.map(|remedy| plain(remedy, TEXT_CHARS));
        let text = plain(text, TEXT_CHARS);
        Check { group: self.group, area: self.name, outcome, text, remedy }
    }

    pub(super) fn ok(self, text: impl AsRef<str>) -> Check {
        self.check(Outcome::Ok, text.as_ref(), None)
    }

    pub(super) fn warn(self, text: impl AsRef<str>, remedy: impl AsRef<str>) -> Check {
        self.check(Outcome::Warn, text.as_ref(), Some(remedy.as_ref()))
    }

    pub(super) fn fail(self, text: impl AsRef<str>, remedy: impl AsRef<str>) -> Check {
        self.check(Outcome::Fail, text.as_ref(), Some(remedy.as_ref()))
    }

    /// With a message of the service's that has what is wrong before its first colon, and what to do
    /// after it.
    pub(super) fn message(self, outcome: Outcome, message: &str) -> Check {
        match message.split_once(": ") {
            Some((text, remedy)) => self.check(outcome, text, Some(remedy)),
            None => self.check(outcome, message, None),
        }
    }
}

/// The result of one check. The names of its fields are documented.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub group: Group,
    pub area: &'static str,
    pub outcome: Outcome,
    pub text: String,
    /// What to do. Not with `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst of them.
    pub outcome: Outcome,
    pub checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(mut checks: Vec<Check>) -> Self {
        checks.sort_by_key(|check| check.group);
        // An API server that is not reached fails each request with the same text.
        checks.dedup();
        let outcome = checks.iter().map(|check| check.outcome).max().unwrap_or(Outcome::Ok);
        Self { outcome, checks }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        match self.outcome {
            Outcome::Ok | Outcome::Warn => ExitCode::SUCCESS,
            Outcome::Fail => ExitCode::FAILURE,
        }
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.area.len()).max().unwrap_or(0);
        let mut group = None;
        for check in &self.checks {
            if group.replace(check.group) != Some(check.group) {
                writeln!(f, "{}", check.group.as_str())?;
            }
            let Check { area, outcome, text, remedy, .. } = check;
            writeln!(f, "  {:<4}  {area:<width$}  {text}", outcome.as_str())?;
            if let Some(remedy) = remedy {
                writeln!(f, "  {:<4}  {:<width$}  {remedy}", "", "")?;
            }
        }
        let [ok, warn, fail] = [Outcome::Ok, Outcome::Warn, Outcome::Fail].map(|it| self.count(it));
        write!(f, "{ok} ok, {warn} warn, {fail} fail")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MINT: Area = Area::new(Group::Mints, "mint");
    const DISK: Area = Area::new(Group::Host, "disk room");

    fn report() -> Report {
        Report::new(vec![
            MINT.fail("https://mint.example: \u{1b}[2Jaway", "wait for it"),
            DISK.ok("9 GiB"),
            MINT.ok("https://b.example: its fee is 100 ppk"),
        ])
    }

    #[test]
    fn checks_are_lines_in_groups_with_what_to_do_below() {
        let expected = "host
  ok    disk room  9 GiB
mints
  fail  mint       https://mint.example: \\u{1b}[2Jaway
                   wait for it
  ok    mint       https://b.example: its fee is 100 ppk
2 ok, 0 warn, 1 fail";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn the_json_has_the_documented_form() {
        let away = json!({"group": "mints", "area": "mint", "outcome": "fail",
            "text": "https://mint.example: \\u{1b}[2Jaway", "remedy": "wait for it"});
        let room = json!({"group": "host", "area": "disk room", "outcome": "ok", "text": "9 GiB"});
        let fee = json!({"group": "mints", "area": "mint", "outcome": "ok",
            "text": "https://b.example: its fee is 100 ppk"});
        let expected = json!({"outcome": "fail", "checks": [room, away, fee]});
        assert_eq!(serde_json::to_value(report()).unwrap(), expected);
    }

    #[test]
    fn the_worst_outcome_decides() {
        let [ok, warn] = [DISK.ok("a"), DISK.warn("b", "c")];
        assert_eq!(Report::new(vec![]).outcome, Outcome::Ok);
        assert_eq!(Report::new(vec![warn.clone(), ok.clone()]).outcome, Outcome::Warn);
        assert_eq!(Report::new(vec![warn, DISK.fail("d", "e"), ok]).outcome, Outcome::Fail);
    }

    #[test]
    fn what_fails_with_the_same_text_is_one_line() {
        let away = || MINT.fail("away", "wait for it");
        let report = Report::new(vec![away(), DISK.ok("9 GiB"), away()]);
        assert_eq!(report.checks, [DISK.ok("9 GiB"), away()]);
    }

    #[test]
    fn a_message_is_split_into_what_is_wrong_and_what_to_do() {
        let check = DISK.message(Outcome::Warn, "it is full: remove: something");
        assert_eq!(
            (check.text.as_str(), check.remedy.as_deref()),
            ("it is full", Some("remove: something"))
        );
    }
}
