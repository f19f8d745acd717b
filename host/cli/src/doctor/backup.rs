//! How old the last backup is: by when what the operator's backup writes last was changed.

use super::report::{Area, Check, Group};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

const BACKUP: Area = Area::new(Group::Host, "backup");

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// A day, and the time in which the next backup is made.
const DAILY: Duration = Duration::from_secs(93_600);
const WEEK: Duration = Duration::from_secs(604_800);
/// A disk of another machine has its clock.
const CLOCK_AGREES: Duration = Duration::from_secs(60);

const REMEDY: &str =
    "back up, and look why it was not done: see \"Back up and restore\" in docs/operating.md";

/// The check of this file or directory, if one is named.
pub(super) fn check(last_written: Option<&Path>) -> Check {
    let Some(path) = last_written else {
        return BACKUP
            .ok("its age is not checked: set BACKUP_FILE to a file that your backup writes last");
    };
    let place = format!("BACKUP_FILE: {}", path.display());
    match std::fs::metadata(path).and_then(|found| found.modified()) {
        Ok(modified) => of_age(&place, modified, SystemTime::now()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            BACKUP.fail(format!("{place} is not there"), REMEDY)
        }
        Err(error) => BACKUP.fail(
            format!("{place} cannot be read: {error}"),
            "run this in the service's working directory, as its user",
        ),
    }
}

/// What it means that it was changed then.
fn of_age(place: &str, modified: SystemTime, now: SystemTime) -> Check {
    let age = match now.duration_since(modified) {
        Ok(age) => age,
        Err(ahead) if ahead.duration() <= CLOCK_AGREES => Duration::ZERO,
        Err(_) => {
            return BACKUP.warn(
                format!("{place} is of the future: how old it is is not known"),
                "synchronise the clocks of this machine and of the one that writes it (NTP), and back up",
            );
        }
    };
    let text = format!("{place} is {} old", length(age));
    if age > WEEK {
        BACKUP.fail(text, REMEDY)
    } else if age > DAILY {
        BACKUP.warn(text, REMEDY)
    } else {
        BACKUP.ok(text)
    }
}

/// In hours, from two days on in days.
fn length(age: Duration) -> String {
    let whole = |unit: Duration| age.as_secs().checked_div(unit.as_secs()).unwrap_or(0);
    match whole(DAY) {
        0 | 1 => format!("{} h", whole(HOUR)),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;
    use std::fs::File;

    /// What is found of a backup, and whether there is something to do.
    fn assert_check(check: &Check, outcome: Outcome, text: &str) {
        assert_eq!((check.outcome, check.text.as_str()), (outcome, text));
        let remedy = check.remedy.as_deref().unwrap_or_default();
        assert_eq!(remedy.contains("back up"), outcome != Outcome::Ok, "{remedy}");
    }

    #[test]
    fn after_a_day_it_is_a_warning_and_after_a_week_a_failure() {
        let second = Duration::from_secs(1);
        let now = SystemTime::now();
        for (age, outcome, old) in [
            (Duration::ZERO, Outcome::Ok, "0 h"),
            (HOUR * 23, Outcome::Ok, "23 h"),
            (DAILY, Outcome::Ok, "26 h"),
            (DAILY + second, Outcome::Warn, "26 h"),
            (DAY * 2, Outcome::Warn, "2 days"),
            (WEEK, Outcome::Warn, "7 days"),
            (WEEK + second, Outcome::Fail, "7 days"),
        ] {
            let check = of_age("BACKUP_FILE: it", now - age, now);
            assert_check(&check, outcome, &format!("BACKUP_FILE: it is {old} old"));
        }
    }

    #[test]
    fn a_clock_that_is_a_little_ahead_is_no_matter() {
        let now = SystemTime::now();
        let ahead = |by: Duration| of_age("it", now + by, now);
        assert_check(&ahead(CLOCK_AGREES), Outcome::Ok, "it is 0 h old");
        let far = "it is of the future: how old it is is not known";
        assert_check(&ahead(HOUR), Outcome::Warn, far);
    }

    #[test]
    fn files_and_directories_are_read_and_what_is_missing_is_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(check(Some(directory.path())).outcome, Outcome::Ok);
        let file = directory.path().join("backed-up");
        let place = format!("BACKUP_FILE: {}", file.display());
        assert_check(&check(Some(&file)), Outcome::Fail, &format!("{place} is not there"));
        let written = File::create(&file).unwrap();
        assert_check(&check(Some(&file)), Outcome::Ok, &format!("{place} is 0 h old"));
        written.set_modified(SystemTime::now() - DAY * 3).unwrap();
        assert_check(&check(Some(&file)), Outcome::Warn, &format!("{place} is 3 days old"));
        let below = check(Some(&file.join("x")));
        assert!(below.text.contains("cannot be read"), "{below:?}");
        assert!(below.remedy.is_some_and(|it| it.contains("as its user")));
    }

    #[test]
    fn where_none_is_named_it_is_a_note_with_the_setting() {
        let check = check(None);
        assert_eq!((check.outcome, check.remedy), (Outcome::Ok, None));
        assert!(check.text.contains("set BACKUP_FILE"), "{}", check.text);
    }
}
