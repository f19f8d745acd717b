//! GitHub's workflows: every action and image pinned by a digest, permissions given one by one, and
//! nothing from outside in a script; and that the images are pushed as docs/operating.md has it. Their
//! form is checked by actionlint.

use super::files::SourceFile;
use anyhow::{Result, bail};

/// What lets a change from outside run with the project's rights, or passes on all of them.
const NEVER: [(&str, &str); 4] = [
    ("pull_request_target", "runs changes from outside with the project's rights"),
    ("workflow_run:", "runs after changes from outside with the project's rights"),
    ("secrets: inherit", "passes on every secret: name those that are needed"),
    ("write-all", "gives every right: name those that are needed"),
];

/// Builds the images of every change, and pushes some.
const IMAGES: &str = ".github/workflows/images.yml";

/// Its lines, and what they are for.
const REQUIRED: [(&str, &str); 11] = [
    ("branches: [main]", "images of the main branch"),
    ("tags: [\"v*\"]", "images of versions"),
    ("pull_request:", "a build of each pull request"),
    ("PLATFORMS: linux/amd64,linux/arm64", "both platforms"),
    ("type=raw,value=latest,enable={{is_default_branch}}", "the tag `latest`"),
    ("type=ref,event=branch", "the tag of a branch"),
    ("type=semver,pattern=v{{version}}", "the tag `v1.0.0`"),
    ("type=semver,pattern=v{{major}}.{{minor}}", "the tag `v1.0`"),
    (
        "type=semver,pattern=v{{major}},enable=${{ !startsWith(github.ref, 'refs/tags/v0.') }}",
        "the tag `v1`",
    ),
    ("username: ${{ secrets.DOCKERHUB_USERNAME }}", "the login at Docker Hub"),
    ("password: ${{ secrets.DOCKERHUB_TOKEN }}", "the login at Docker Hub"),
];

/// How lines begin of each step that pushes an image.
const OF_EACH_IMAGE: [&str; 5] = [
    "platforms: ${{ env.PLATFORMS }}",
    "tags: ${{ steps.",
    "labels: ${{ steps.",
    "provenance: mode=max",
    "sbom: generator=",
];
/// Of the service, and of the pods' SSH server.
const PUSHED_IMAGES: usize = 2;

pub(crate) fn check(files: &[SourceFile]) -> Result<()> {
    let workflows = files.iter().filter(|file| file.path.starts_with(".github/workflows/"));
    let mut found: Vec<String> = workflows
        .flat_map(|SourceFile { path, text }| {
            faults(text).into_iter().map(move |fault| format!("{path}:{fault}"))
        })
        .collect();
    let images = files.iter().find(|file| file.path == IMAGES);
    let images = images.map(|file| file.text.as_str()).unwrap_or_default();
    found.extend(missing(images).into_iter().map(|fault| format!("{IMAGES}: {fault}")));
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} faults:\n{}", found.len(), found.join("\n"))
}

fn faults(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // How far the key of a script is indented, while its lines follow.
    let mut script: Option<usize> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let content = line.trim_start();
        let indent = line.len().saturating_sub(content.len());
        script = script.filter(|key| content.is_empty() || indent > *key);
        let (key, value) = entry(content);
        if key == "run" {
            let in_list = content.len().saturating_sub(content.trim_start_matches("- ").len());
            script = Some(indent.saturating_add(in_list));
        }
        if script.is_some() && content.contains("${{") {
            found.push(format!("{number}: ${{{{ }}}} in a script: set an `env` and use that"));
        }
        if script.is_some() || content.starts_with('#') {
            continue;
        }
        if key == "uses" && !is_pinned_action(value) {
            found.push(format!("{number}: {value}: pin it, `owner/name@<40 hex digits> # v1.2.3`"));
        }
        let names_image = key == "image" || content.contains("image=") || key == "sbom";
        if names_image && !has_digest(value) {
            found.push(format!("{number}: {value}: pin the image by `@sha256:…`"));
        }
        let never = NEVER.into_iter().filter(|(text, _)| content.contains(text));
        found.extend(never.map(|(text, reason)| format!("{number}: {text} {reason}")));
    }
    if !text.lines().any(|line| line.starts_with("permissions:")) {
        found.push(
            "1: no `permissions` for the whole workflow: begin with `permissions: {}`".into(),
        );
    }
    let checkouts = text.matches("actions/checkout@").count();
    if checkouts > text.matches("persist-credentials: false").count() {
        found.push("1: a checkout leaves its token there: `persist-credentials: false`".into());
    }
    found
}

/// What the workflow of the images lacks.
fn missing(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let absent = REQUIRED.into_iter().filter(|(line, _)| !lines.contains(line));
    let mut found: Vec<String> =
        absent.map(|(line, purpose)| format!("no line `{line}`: {purpose}")).collect();
    let has = |step: &str, start: &str| step.lines().any(|line| line.trim().starts_with(start));
    let pushing: Vec<&str> =
        text.split("\n      - ").filter(|step| has(step, "push: ${{ ")).collect();
    if pushing.len() != PUSHED_IMAGES {
        found.push(format!("{} images are pushed in place of {PUSHED_IMAGES}", pushing.len()));
    }
    for step in pushing {
        let name = step.lines().next().unwrap_or_default();
        let absent = OF_EACH_IMAGE.into_iter().filter(|start| !has(step, start));
        found.extend(absent.map(|start| format!("{name}: no line that begins with `{start}`")));
    }
    found
}

/// A key and its value; both may be empty.
fn entry(content: &str) -> (&str, &str) {
    let (key, value) = content.trim_start_matches("- ").split_once(':').unwrap_or(("", ""));
    (key, value.trim())
}

fn is_pinned_action(value: &str) -> bool {
    let Some((action, version)) = value.split_once(" # ") else { return value.starts_with("./") };
    let commit = action.split_once('@').map(|(_, commit)| commit).unwrap_or_default();
    is_hex(commit, 40) && version.starts_with('v')
}

fn has_digest(value: &str) -> bool {
    let digest = value.split_once("@sha256:").map(|(_, digest)| digest).unwrap_or_default();
    is_hex(digest, 64)
}

fn is_hex(text: &str, length: usize) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == length && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTION: &str = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1";

    fn workflow(steps: &str) -> String {
        format!("on: push\npermissions: {{}}\njobs:\n  a:\n    steps:\n{steps}\n")
    }

    #[test]
    fn what_is_pinned_and_closed_is_accepted() {
        let digest = "6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1";
        let steps = format!(
            "      - uses: {ACTION} # v7.0.1\n        with: {{persist-credentials: false}}\n\
             \x20     - uses: ./.github/actions/own\n        env: {{TAG: \"${{{{ github.ref_name }}}}\"}}\n\
             \x20     - run: |\n          echo \"$TAG\"\n        image: a:1@sha256:{digest}"
        );
        assert_eq!(faults(&workflow(&steps)), [""; 0]);
    }

    #[test]
    fn every_fault_is_found() {
        let credentials = "persist-credentials: false";
        for (steps, fault) in [
            ("      - uses: actions/cache@v4", "actions/cache@v4: pin it"),
            ("      - uses: actions/cache@main # v4", "pin it"),
            ("      - run: echo ${{ github.head_ref }}", "in a script"),
            ("      - run: |\n\n          echo ${{ github.head_ref }}", "in a script"),
            ("      - name: a\n        run: >-\n          echo ${{ inputs.a }}", "in a script"),
            ("    image: debian:12", "debian:12: pin the image"),
            ("      driver-opts: image=a:1", "pin the image"),
            ("    secrets: inherit", "every secret"),
            ("    permissions: write-all", "every right"),
            ("on: pull_request_target", "from outside"),
        ] {
            let found = faults(&workflow(steps));
            assert!(found.len() == 1 && found[0].contains(fault), "{steps}: {found:?}");
        }
        let checkout = format!("      - uses: {ACTION} # v7.0.1");
        assert!(faults(&workflow(&checkout))[0].contains(credentials));
        assert!(faults("on: push\n")[0].contains("permissions"));
    }

    #[test]
    fn what_the_images_lack_is_found() {
        let text = std::fs::read_to_string(crate::run::root().join(IMAGES)).unwrap();
        assert_eq!(missing(&text), [""; 0]);
        for (line, purpose) in REQUIRED {
            let found = missing(&text.replace(line, "other"));
            assert!(found.iter().any(|fault| fault.ends_with(purpose)), "{line}: {found:?}");
        }
        for start in OF_EACH_IMAGE {
            let found = missing(&text.replace(start, "other: "));
            assert_eq!(found.len(), PUSHED_IMAGES, "{start}: {found:?}");
            // Of the last alone.
            let (rest, last) = text.rsplit_once(start).unwrap();
            assert_eq!(missing(&format!("{rest}other: {last}")).len(), 1, "{start}");
        }
        assert!(missing(&text.replacen("push: ${{ ", "push: false # ", 1))[0].contains("1 images"));
        assert!(!missing("").is_empty());
    }

    #[test]
    fn the_tree_has_what_is_pinned() {
        check(&crate::checks::files::tracked().unwrap()).unwrap();
    }
}
