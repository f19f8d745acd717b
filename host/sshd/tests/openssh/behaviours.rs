//! `docs/ssh-behaviours.md` is made of the cases of `differential`, and of their differences.

use crate::cases::{CASES, DIFFERENCES, difference};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ssh-behaviours.md");
/// Set by [`COMMAND`].
const BLESS: &str = "PAYGRESS_SSH_BLESS";
/// What writes the file.
const COMMAND: &str =
    "PAYGRESS_SSH_BLESS=1 cargo test --package paygress-sshd --test openssh behaviours";

fn document() -> String {
    let equal = CASES.iter().filter(|(name, _)| difference(name).is_none()).count();
    let rows = CASES.iter().map(|(name, _)| match difference(name) {
        Some(reason) => format!("| {name} | different: {reason} |\n"),
        None => format!("| {name} | equal |\n"),
    });
    format!(
        "# Behaviours of the SSH server\n\n\
         Each row is a script of [`cases.rs`](../host/sshd/tests/openssh/cases.rs), which has all \
         that the\nclient does. A test runs them against OpenSSH's sshd and against the pods' server \
         ([how](ssh.md#how-it-is-tested)), and\nfails if a row is not true. {equal} of {} \
         behaviours are equal, {} are documented differences.\n\n\
         The file is made of the scripts. After a change to them, write it anew:\n\n\
         ```sh\n{COMMAND}\n```\n\n\
         | what a client does | compared with OpenSSH's sshd |\n|---|---|\n{}",
        CASES.len(),
        DIFFERENCES.len(),
        rows.collect::<String>()
    )
}

#[test]
fn the_documented_behaviours_are_those_that_are_compared() {
    let expected = document();
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(FILE, &expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(FILE).unwrap_or_default();
    let only = |here: &str, there: &str| -> Vec<String> {
        let lines = here.lines().filter(|line| !there.lines().any(|other| other == *line));
        lines.map(ToOwned::to_owned).collect()
    };
    let (missing, stale) = (only(&expected, &found), only(&found, &expected));
    assert!(
        found == expected,
        "docs/ssh-behaviours.md lacks {missing:#?} and has {stale:#?}: run `{COMMAND}`, and commit the file"
    );
}

#[test]
fn each_case_has_a_name_of_its_own_and_each_difference_is_of_one() {
    let named = |name: &str| CASES.iter().filter(|(case, _)| *case == name).count();
    for (name, _) in CASES.iter().chain(&DIFFERENCES) {
        assert_eq!(named(name), 1, "{name}");
        assert!(!name.contains(['|', '\n']), "{name} does not fit into a row of a table");
    }
    let differences = DIFFERENCES.iter();
    let kept = differences.filter(|(name, reason)| difference(name) == Some(*reason)).count();
    assert_eq!(kept, DIFFERENCES.len(), "a case has two reasons");
}
