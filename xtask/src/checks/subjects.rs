//! The subjects of commits are `area: imperative`, at most 72 characters. Merges have those of git.

use crate::run::{output, root};
use anyhow::{Result, bail};
use std::process::Command;

/// Commits that were written before keep their subjects: 2026-11-29, 12:00 UTC.
const SINCE: u64 = 1_795_953_600;
const MAX_CHARACTERS: usize = 72;
/// Verbs with an end that imperatives rarely have.
const VERBS: [&str; 9] =
    ["bring", "ping", "string", "embed", "feed", "need", "seed", "speed", "focus"];
/// What begins a sentence or a noun, not an order.
const NO_VERBS: [&str; 5] = ["a", "an", "the", "what", "one"];

pub(crate) fn check() -> Result<()> {
    let git = |arguments: &[&str]| output(Command::new("git").args(arguments).current_dir(root()));
    let log = match git(&["log", "--format=%h%x09%at%x09%p%x09%s"]) {
        Ok(log) => log,
        Err(error) => {
            println!("NOT RUN: the subjects of commits, since there is no history: {error:#}");
            return Ok(());
        }
    };
    if git(&["rev-parse", "--is-shallow-repository"]).is_ok_and(|answer| answer == "true") {
        println!(
            "NOT RUN: the subjects of commits that this shallow clone leaves out or ends with"
        );
    }
    let found = faults(&log);
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} subjects of commits; see CONTRIBUTING.md:\n{}", found.len(), found.join("\n"))
}

/// Of lines with hash, author's time, parents and subject. A commit with one parent is no merge; one
/// without is the first, or where a shallow clone ends, and there it may be a merge.
fn faults(log: &str) -> Vec<String> {
    let found = log.lines().filter_map(|line| {
        let mut fields = line.splitn(4, '\t');
        let (hash, time) = (fields.next()?, fields.next()?);
        let (parents, subject) = (fields.next()?, fields.next()?);
        let is_checked =
            time.parse::<u64>().ok()? >= SINCE && parents.split_whitespace().count() == 1;
        let reason = fault(subject).filter(|_| is_checked)?;
        Some(format!("{hash}: {reason}: {subject}"))
    });
    found.collect()
}

fn fault(subject: &str) -> Option<&'static str> {
    if subject.chars().count() > MAX_CHARACTERS {
        return Some("more than 72 characters");
    }
    let Some((areas, text)) = subject.split_once(": ") else { return Some("no area") };
    let is_area = |area: &str| {
        let mut bytes = area.bytes();
        !area.is_empty() && bytes.all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    if !areas.split(", ").all(is_area) {
        return Some("the area is no crate or directory");
    }
    (!is_imperative(text)).then_some("begin with a verb, in lower case, as in an order")
}

/// As far as the first word shows it.
fn is_imperative(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    let has_other_form = first.ends_with("ed")
        || first.ends_with("ing")
        || first.ends_with('s') && !first.ends_with("ss");
    first.starts_with(|c: char| c.is_ascii_lowercase())
        && !NO_VERBS.contains(&first)
        && (!has_other_form || VERBS.contains(&first))
}

#[cfg(test)]
mod tests {
    use super::{SINCE, check, fault, faults};

    #[test]
    fn a_subject_is_an_area_and_an_imperative() {
        let longest = format!("core: add {}", "x".repeat(62));
        for right in [
            "cashu: keep an operation open until the mint answers",
            "core, http-client: pass an error's source",
            "k8s: bring pods back",
            "docs: write `cargo xtask check: …` in full",
            longest.as_str(),
        ] {
            assert_eq!(fault(right), None, "{right}");
        }
        let too_long = format!("{longest}é");
        for (wrong, reason) in [
            (too_long.as_str(), "72 characters"),
            ("", "no area"),
            ("Add a check", "no area"),
            ("core:add a check", "no area"),
            ("Core: add a check", "the area"),
            ("fixup! core: add a check", "the area"),
            ("core,http: add a check", "the area"),
            ("core, : add a check", "the area"),
            (": add a check", "the area"),
            ("core: ", "a verb"),
            ("core: Add a check", "a verb"),
            ("core: added a check", "a verb"),
            ("core: adding a check", "a verb"),
            ("core: adds a check", "a verb"),
            ("core: figures of a check", "a verb"),
            ("core: the check", "a verb"),
        ] {
            let found = fault(wrong).unwrap_or_default();
            assert!(found.contains(reason), "{wrong:?}: {found:?}");
        }
    }

    #[test]
    fn commits_of_before_and_merges_keep_theirs() {
        let (before, since) = (SINCE.saturating_sub(1), SINCE);
        let wrong = format!("a\t{since}\tb\tAdd a check\twith a tab");
        assert_eq!(faults(&wrong), ["a: no area: Add a check\twith a tab"]);
        for kept in [
            format!("a\t{since}\tb\tcore: add a check"),
            format!("a\t{before}\tb\tAdd a check"),
            format!("a\t{since}\tb c\tMerge branch 'check'"),
            format!("a\t{since}\t\tAdd a check"),
        ] {
            assert_eq!(faults(&kept), Vec::<String>::new(), "{kept:?}");
            assert_eq!(faults(&format!("{kept}\n{wrong}\n{kept}")).len(), 1, "{kept:?}");
        }
    }

    #[test]
    fn the_history_has_none() {
        check().unwrap();
    }
}
