//! What the Dockerfile must not do, and that its images say of themselves what those that the tests
//! load do.

use super::files::SourceFile;
use crate::images::{SERVICE, SSH, Settings};
use anyhow::{Result, bail};

pub(crate) fn check(files: &[SourceFile]) -> Result<()> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| is_dockerfile(&file.path)) {
        found.extend(faults(&file.text).into_iter().map(|fault| format!("{}:{fault}", file.path)));
    }
    let own = files.iter().find(|file| file.path == "Dockerfile");
    let own = own.map(|file| file.text.as_str()).unwrap_or_default();
    for settings in [SERVICE, SSH] {
        found.extend(difference(own, &settings).map(|fault| format!("Dockerfile: {fault}")));
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} faults:\n{}", found.len(), found.join("\n"))
}

fn is_dockerfile(path: &str) -> bool {
    path.rsplit('/')
        .next()
        .is_some_and(|name| name == "Dockerfile" || name.ends_with(".Dockerfile"))
}

struct Instruction {
    /// Of its beginning, from one.
    line: usize,
    /// In capitals.
    name: String,
    arguments: String,
}

/// Those of a file, without comments; continued lines are one.
fn instructions(text: &str) -> Vec<Instruction> {
    let (mut found, mut continues) = (Vec::<Instruction>::new(), false);
    for (line, content) in (1..).zip(text.lines().map(str::trim)) {
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let part = content.strip_suffix('\\').unwrap_or(content).trim_end();
        match found.last_mut().filter(|_| continues) {
            Some(last) => last.arguments = format!("{} {part}", last.arguments),
            None => {
                let (name, arguments) = part.split_once(' ').unwrap_or((part, ""));
                let (name, arguments) = (name.to_uppercase(), arguments.trim().to_owned());
                found.push(Instruction { line, name, arguments });
            }
        }
        continues = content.ends_with('\\');
    }
    found
}

/// What a `FROM` is from, and what it is called.
fn base(arguments: &str) -> (&str, Option<&str>) {
    let mut words = arguments.split_whitespace().filter(|word| !word.starts_with("--"));
    let image = words.next().unwrap_or_default();
    let is_named = words.next().is_some_and(|word| word.eq_ignore_ascii_case("as"));
    (image, words.next().filter(|_| is_named))
}

struct Stage {
    line: usize,
    /// Made from nothing, or the last one.
    is_published: bool,
    is_unprivileged: bool,
}

fn faults(text: &str) -> Vec<String> {
    let (mut found, mut names) = (Vec::new(), Vec::<String>::new());
    let mut stages: Vec<Stage> = Vec::new();
    for instruction in instructions(text) {
        let Instruction { line, name, arguments } = &instruction;
        if let Some(fault) = fault(&instruction, &names) {
            found.push(format!("{line}: {fault}"));
        }
        if name == "FROM" {
            let (image, stage) = base(arguments);
            names.extend(stage.map(str::to_owned));
            let is_published = image == "scratch";
            stages.push(Stage { line: *line, is_published, is_unprivileged: false });
        } else if let Some(stage) = stages.last_mut().filter(|_| name == "USER") {
            stage.is_unprivileged = is_unprivileged_user(arguments);
        }
    }
    if let Some(last) = stages.last_mut() {
        last.is_published = true;
    }
    for stage in stages.iter().filter(|stage| stage.is_published && !stage.is_unprivileged) {
        found.push(format!("{}: USER is missing, or is not a number that is not 0", stage.line));
    }
    found
}

/// Of one instruction, after stages of these names.
fn fault(instruction: &Instruction, stages: &[String]) -> Option<String> {
    let Instruction { name, arguments, .. } = instruction;
    let is_known = |image: &str| is_pinned(image) || stages.iter().any(|stage| stage == image);
    let has = |text: &str| arguments.contains(text);
    match name.as_str() {
        "FROM" => {
            let (image, _) = base(arguments);
            (!is_known(image))
                .then(|| format!("{image} is not pinned by a digest, `name:tag@sha256:…`"))
        }
        "ADD" => Some("ADD fetches and unpacks: use COPY".to_owned()),
        "COPY" => {
            let from = arguments.split_whitespace().find_map(|it| it.strip_prefix("--from="))?;
            (!is_known(from)).then(|| format!("COPY is from {from}, no stage and not pinned"))
        }
        "RUN" if has("curl ") || has("wget ") => {
            Some("RUN fetches: use a package, which has a digest".to_owned())
        }
        "RUN" if has("apt-get install") && !has("--no-install-recommends") => {
            Some("apt-get install is without --no-install-recommends".to_owned())
        }
        _ => None,
    }
}

fn is_pinned(image: &str) -> bool {
    if image == "scratch" {
        return true;
    }
    let Some((name, digest)) = image.split_once("@sha256:") else { return false };
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    let is_digest = digest.len() == 64
        && digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_digest && tag.is_some_and(|tag| tag != "latest")
}

/// By number, since an image from nothing has no names, and Kubernetes reads none.
fn is_unprivileged_user(user: &str) -> bool {
    user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id != 0))
}

/// Between a stage of the Dockerfile and an image of `cargo xtask images`.
fn difference(text: &str, settings: &Settings) -> Option<String> {
    let (mut stage, mut found) = (None::<String>, Vec::new());
    for Instruction { name, arguments, .. } in instructions(text) {
        match name.as_str() {
            "FROM" => stage = base(&arguments).1.map(str::to_owned),
            "USER" | "EXPOSE" | "ENTRYPOINT" | "CMD"
                if stage.as_deref() == Some(settings.stage) =>
            {
                found.push((name, arguments));
            }
            _ => {}
        }
    }
    let json = |values: &[&str]| format!("[\"{}\"]", values.join("\", \""));
    let mut expected = vec![
        ("USER", Settings::user()),
        ("EXPOSE", settings.port.to_string()),
        ("ENTRYPOINT", json(&[settings.entrypoint])),
    ];
    if !settings.arguments.is_empty() {
        expected.push(("CMD", json(settings.arguments)));
    }
    let expected: Vec<(String, String)> =
        expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    (found != expected)
        .then(|| format!("{} has {found:?}, and cargo xtask images {expected:?}", settings.stage))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1";

    fn of(lines: &[&str]) -> Vec<String> {
        faults(&lines.join("\n"))
    }

    #[test]
    fn what_is_safe_is_accepted() {
        let base = format!("FROM --platform=linux/amd64 a/b:1{DIGEST} AS build");
        let run =
            "RUN apt-get update && apt-get install \\\n  # why\n  --no-install-recommends gcc";
        let lines =
            [base.as_str(), run, "FROM scratch", "COPY --from=build /out /", "USER 1000:1000"];
        assert_eq!(of(&lines), [""; 0]);
    }

    #[test]
    fn every_fault_is_found() {
        let end = "FROM scratch\nUSER 1000:1000";
        let (untagged, latest) = (format!("FROM a{DIGEST}"), format!("FROM a:latest{DIGEST}"));
        for (line, fault) in [
            ("FROM a:1", "a:1 is not pinned"),
            (untagged.as_str(), "is not pinned"),
            (latest.as_str(), "is not pinned"),
            ("FROM a:1@sha256:abc", "is not pinned"),
            ("FROM scratch\nUSER 1\nADD a /", "ADD fetches"),
            ("FROM scratch\nUSER 1\nCOPY --from=a:1 /a /", "COPY is from a:1"),
            ("FROM scratch\nUSER 1\nRUN apt-get install gcc", "without --no-install"),
            ("FROM scratch\nUSER 1\nRUN curl https://a.example", "RUN fetches"),
            ("FROM scratch", "USER is missing"),
            ("FROM scratch\nUSER root", "USER is missing"),
            ("FROM scratch\nUSER 0:1", "USER is missing"),
        ] {
            let found = of(&[line, end]);
            assert!(found.len() == 1 && found[0].contains(fault), "{line}: {found:?}");
        }
        let root = format!("FROM a:1{DIGEST}");
        assert_eq!(of(&[root.as_str()]).len(), 1);
    }

    #[test]
    fn an_image_is_as_the_tests_load_it() {
        let stage = "FROM scratch AS paygress\nUSER 1000:1000\nEXPOSE 8080\n\
                     ENTRYPOINT [\"/usr/local/bin/paygress\"]\nCMD [\"serve\"]";
        assert_eq!(difference(stage, &SERVICE), None);
        for other in [stage.replace("8080", "80"), stage.replace("serve", "demo"), String::new()] {
            assert!(difference(&other, &SERVICE).is_some(), "{other}");
        }
    }

    #[test]
    fn the_tree_has_what_is_safe() {
        check(&crate::checks::files::tracked().unwrap()).unwrap();
    }
}
