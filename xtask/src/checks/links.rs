//! Relative links in Markdown lead somewhere: to a file, and to a heading in it.

use super::files::SourceFile;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(crate) fn check(files: &[SourceFile], root: &Path) -> Result<()> {
    let found = dead(files, |path| root.join(path).exists());
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} links lead nowhere:\n{}", found.len(), found.join("\n"))
}

fn dead(files: &[SourceFile], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let markdown = || files.iter().filter(|file| file.path.ends_with(".md"));
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        markdown().map(|file| (file.path.as_str(), anchors(&file.text))).collect();
    let mut found = Vec::new();
    for file in markdown() {
        for (line, target) in links(&file.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { file.path.clone() } else { resolve(&file.path, path) };
            let is_there = exists(&path)
                && (anchor.is_empty()
                    || anchors.get(path.as_str()).is_none_or(|all| all.contains(anchor)));
            if !is_there {
                found.push(format!("{}:{line}: {target}", file.path));
            }
        }
    }
    found
}

/// The targets of `[text](target)` and `[name]: target`, outside of code.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Every second part is between backticks.
        for part in line.split('`').step_by(2) {
            for (at, _) in part.match_indices("](") {
                let rest = part.get(at.saturating_add(2)..).unwrap_or_default();
                let target = rest.split([')', ' ']).next().unwrap_or_default();
                found.push((number, target.trim_matches(['<', '>'])));
            }
        }
        // The text of a link may be code, which ends a part: `[`name`](target)`.
        for (at, _) in line.match_indices("`](") {
            let rest = line.get(at.saturating_add(3)..).unwrap_or_default();
            found.push((number, rest.split([')', ' ']).next().unwrap_or_default()));
        }
        if let Some((_, target)) = line.strip_prefix('[').and_then(|line| line.split_once("]: ")) {
            found.push((number, target.split(' ').next().unwrap_or_default()));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The lines that are not in fences.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The headings as GitHub names them, and what has an id.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        if title.len() < line.len() && title.starts_with(' ') {
            let slug: String = title
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            let times = (1..).map(|n| format!("{slug}-{n}"));
            let free = std::iter::once(slug.clone()).chain(times).find(|id| !found.contains(id));
            found.extend(free);
        }
        for id in line.split("id=\"").skip(1) {
            found.extend(id.split('"').next().map(str::to_owned));
        }
    }
    found
}

/// A relative path, from the directory of a file; one that begins with `/` is of the workspace.
fn resolve(file: &str, path: &str) -> String {
    let mut parts: Vec<&str> = match path.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => file.rsplit_once('/').map_or(Vec::new(), |(folder, _)| folder.split('/').collect()),
    };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::{SourceFile, anchors, check, dead};

    fn found(text: &str) -> Vec<String> {
        let file =
            |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
        let files = [file("docs/a.md", text), file("README.md", "# The title: it's `this`\n")];
        dead(&files, |path| ["docs/a.md", "README.md", "docs"].contains(&path))
    }

    #[test]
    fn a_dead_link_is_found() {
        assert_eq!(found("[a](../README.md) [b](b.md)\n"), ["docs/a.md:1: b.md"]);
        assert_eq!(found("\n[`b`](b.md)\n[c]: c.md\n"), ["docs/a.md:2: b.md", "docs/a.md:3: c.md"]);
        assert_eq!(found("[a](https://example.org/b.md) `[b](b.md)`\n```\n[c](c)\n```\n"), [""; 0]);
    }

    #[test]
    fn a_dead_anchor_is_found() {
        let text =
            "# Here\n[a](../README.md#the-title-its-this) [b](#here) [c](../README.md#gone)\n";
        assert_eq!(found(text), ["docs/a.md:2: ../README.md#gone"]);
    }

    #[test]
    fn a_heading_that_repeats_gets_a_number() {
        assert_eq!(anchors("# A b\n## A b\n").into_iter().collect::<Vec<_>>(), ["a-b", "a-b-1"]);
    }

    #[test]
    fn the_tree_has_none() {
        check(&crate::checks::files::tracked().unwrap(), &crate::run::root()).unwrap();
    }
}
