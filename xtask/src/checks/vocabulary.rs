//! No retired word is left: `cargo xtask vocabulary`.
//!
//! `retired.txt` is the list, `allowed.txt` are its exceptions, each with a reason. What
//! `#[serde(rename = "…")]` and `alias` keep is a stored form, and is always allowed.

use super::files::SourceFile;
use super::rust_source::code_only;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeSet, HashMap};

const RETIRED: &str = include_str!("retired.txt");
const ALLOWED: &str = include_str!("allowed.txt");

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hit {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) word: String,
    pub(crate) instead: String,
}

/// Prints every hit below `prefix`, and how many there are.
pub(crate) fn print(prefix: Option<&str>) -> Result<()> {
    let files = super::files::tracked()?;
    let below = prefix.unwrap_or_default();
    let files = files.iter().filter(|file| file.path.starts_with(below));
    let hits = Vocabulary::load()?.hits(files);
    for Hit { path, line, word, instead } in &hits {
        println!("{path}:{line}: {word} (say: {instead})");
    }
    println!("── {} retired words", hits.len());
    Ok(())
}

/// Fails if there is a hit.
pub(crate) fn check(files: &[SourceFile]) -> Result<()> {
    let hits = Vocabulary::load()?.hits(files.iter());
    if hits.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        hits.iter().map(|hit| format!("{}:{}: {}", hit.path, hit.line, hit.word)).collect();
    bail!("{} retired words; see `cargo xtask vocabulary`\n{}", hits.len(), lines.join("\n"))
}

struct Rule {
    instead: String,
    /// Where it holds.
    below: String,
}

struct Exception {
    word: String,
    path: String,
    text: String,
}

#[derive(Default)]
struct Vocabulary {
    words: HashMap<String, Rule>,
    names: HashMap<String, Vec<Rule>>,
    functions: HashMap<String, Vec<Rule>>,
    phrases: Vec<(Vec<String>, Rule)>,
    paths: Vec<(String, Rule)>,
    exceptions: Vec<Exception>,
}

impl Vocabulary {
    fn load() -> Result<Self> {
        Self::parse(RETIRED, ALLOWED)
    }

    fn parse(retired: &str, allowed: &str) -> Result<Self> {
        let mut vocabulary = Self::default();
        for line in entries(retired) {
            vocabulary.rule(line).with_context(|| format!("retired.txt: {line}"))?;
        }
        for line in entries(allowed) {
            let parts: Vec<&str> = line.split('|').map(str::trim).collect();
            let [word, path, text, reason] = parts.as_slice() else {
                bail!("allowed.txt: {line}: word | path | text | reason");
            };
            if reason.is_empty() {
                bail!("allowed.txt: {line}: no reason");
            }
            vocabulary.exceptions.push(Exception {
                word: (*word).to_owned(),
                path: path.trim_end_matches('*').to_owned(),
                text: text.trim_matches('*').to_owned(),
            });
        }
        Ok(vocabulary)
    }

    fn rule(&mut self, line: &str) -> Result<()> {
        let (left, right) = line.split_once(" = ").context("no replacement")?;
        let (kind, old) = left.split_once(' ').context("no kind")?;
        let (instead, below) = right.split_once(" in ").unwrap_or((right, ""));
        let rule = Rule { instead: instead.trim().to_owned(), below: below.trim().to_owned() };
        match kind {
            "word" => drop(self.words.insert(old.to_owned(), rule)),
            "name" => self.names.entry(old.to_owned()).or_default().push(rule),
            "fn" => self.functions.entry(old.to_owned()).or_default().push(rule),
            "phrase" => {
                self.phrases.push((old.split_whitespace().map(str::to_owned).collect(), rule));
            }
            "path" => self.paths.push((old.to_owned(), rule)),
            other => bail!("{other} is no kind of rule"),
        }
        Ok(())
    }

    fn hits<'a>(&self, files: impl Iterator<Item = &'a SourceFile>) -> Vec<Hit> {
        let mut hits = BTreeSet::new();
        for file in files.filter(|file| !file.path.starts_with("xtask/src/checks/")) {
            self.in_path(&file.path, &mut hits);
            self.in_text(file, &mut hits);
            self.in_code(file, &mut hits);
            self.in_prose(file, &mut hits);
        }
        hits.into_iter().collect()
    }

    fn in_path(&self, path: &str, hits: &mut BTreeSet<Hit>) {
        for (prefix, rule) in &self.paths {
            let rest = path.strip_prefix(prefix.as_str());
            if rest.is_some_and(|rest| rest.starts_with(['/', '.'])) {
                self.add(hits, path, 0, "", prefix, rule);
            }
        }
        for part in atoms(path).flat_map(|(_, atom)| segments(atom)) {
            if let Some(rule) = self.words.get(&part) {
                self.add(hits, path, 0, "", &part, rule);
            }
        }
    }

    fn in_text(&self, file: &SourceFile, hits: &mut BTreeSet<Hit>) {
        for (number, line) in (1..).zip(file.text.lines()) {
            let stored = stored_forms(line);
            for part in atoms(&stored).flat_map(|(_, atom)| segments(atom)) {
                if let Some(rule) = self.words.get(&part).filter(|rule| rule.holds(&file.path)) {
                    self.add(hits, &file.path, number, line, &part, rule);
                }
            }
        }
    }

    fn in_code(&self, file: &SourceFile, hits: &mut BTreeSet<Hit>) {
        if !file.is_rust() {
            return;
        }
        let code = code_only(&file.text);
        for (number, (line, original)) in (1..).zip(code.lines().zip(file.text.lines())) {
            let mut before = "";
            let quoted = original.split('`').skip(1).step_by(2).flat_map(atoms);
            for (_, atom) in atoms(line).chain(quoted) {
                let rules = match before {
                    "fn" => self.functions.get(atom).into_iter().chain(self.names.get(atom)),
                    _ => self.names.get(atom).into_iter().chain(None),
                };
                for rule in rules.flatten().filter(|rule| rule.holds(&file.path)) {
                    self.add(hits, &file.path, number, original, atom, rule);
                }
                before = atom;
            }
        }
    }

    /// Phrases run over the ends of lines, as comments do; not over the ends of sentences.
    fn in_prose(&self, file: &SourceFile, hits: &mut BTreeSet<Hit>) {
        let mut sentence: Vec<(usize, &str)> = Vec::new();
        for (number, line) in (1..).zip(file.text.lines()) {
            let mut end = 0;
            for (at, atom) in atoms(line) {
                if line.get(end..at).is_some_and(|between| between.contains(['.', '!', '?', ';'])) {
                    sentence.clear();
                }
                sentence.push((number, atom));
                end = at.saturating_add(atom.len());
                for (phrase, rule) in &self.phrases {
                    let from = sentence.len().saturating_sub(phrase.len());
                    let last = sentence.get(from..).unwrap_or_default();
                    let same = last.len() == phrase.len()
                        && last.iter().zip(phrase).all(|((_, a), b)| is_word(a, b));
                    if same && rule.holds(&file.path) {
                        self.add(hits, &file.path, number, line, &phrase.join(" "), rule);
                    }
                }
            }
            let rest = line.get(end..).unwrap_or_default();
            if line.trim().is_empty() || rest.contains(['.', '!', '?', ';', '{', '}']) {
                sentence.clear();
            }
        }
    }

    fn add(
        &self,
        hits: &mut BTreeSet<Hit>,
        path: &str,
        line: usize,
        text: &str,
        word: &str,
        rule: &Rule,
    ) {
        let allowed = self.exceptions.iter().any(|exception| {
            exception.word == word
                && path.starts_with(&exception.path)
                && text.contains(&exception.text)
        });
        if !allowed {
            hits.insert(Hit {
                path: path.to_owned(),
                line,
                word: word.to_owned(),
                instead: rule.instead.clone(),
            });
        }
    }
}

impl Rule {
    fn holds(&self, path: &str) -> bool {
        path.starts_with(&self.below)
    }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// As a word of prose: in lower case, or with a capital at a sentence's beginning.
fn is_word(atom: &str, word: &str) -> bool {
    atom == word
        || atom.get(1..) == word.get(1..)
            && atom.get(..1).map(str::to_lowercase).as_deref() == word.get(..1)
}

/// The line without what serde is told to call a thing in storage.
fn stored_forms(line: &str) -> String {
    let mut rest = line.to_owned();
    for attribute in ["rename = \"", "alias = \"", "serialize = \"", "deserialize = \""] {
        while let Some(from) = rest.find(attribute) {
            let value = from.saturating_add(attribute.len());
            let end = rest.get(value..).and_then(|text| text.find('"'));
            let to = end.map_or(rest.len(), |end| value.saturating_add(end));
            rest.replace_range(from..to, "");
        }
    }
    rest
}

/// Runs of letters, digits and underscores, and where they begin.
fn atoms(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0_usize;
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter_map(move |atom| {
        let from =
            text.get(at..).and_then(|rest| rest.find(atom)).map_or(at, |n| at.saturating_add(n));
        if !atom.is_empty() {
            at = from.saturating_add(atom.len());
        }
        (!atom.is_empty()).then_some((from, atom))
    })
}

/// The words of an identifier, in lower case: of `desk_of` and of `DeskEntry`.
fn segments(atom: &str) -> Vec<String> {
    let mut segments = Vec::new();
    for part in atom.split('_') {
        let mut segment = String::new();
        let mut characters = part.chars().peekable();
        let mut before_is_lower = false;
        while let Some(c) = characters.next() {
            let next_is_lower = characters.peek().is_some_and(|next| next.is_lowercase());
            if c.is_uppercase() && !segment.is_empty() && (before_is_lower || next_is_lower) {
                segments.push(std::mem::take(&mut segment));
            }
            before_is_lower = !c.is_uppercase();
            segment.extend(c.to_lowercase());
        }
        if !segment.is_empty() {
            segments.push(segment);
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::{SourceFile, Vocabulary, segments};

    fn hits(path: &str, text: &str) -> Vec<(usize, String)> {
        let file = SourceFile { path: path.to_owned(), text: text.to_owned() };
        let vocabulary = Vocabulary::load().unwrap();
        vocabulary
            .hits(std::iter::once(&file))
            .into_iter()
            .map(|hit| (hit.line, hit.word))
            .collect()
    }

    fn one(line: usize, word: &str) -> Vec<(usize, String)> {
        vec![(line, word.to_owned())]
    }

    #[test]
    fn words_are_found_in_text_and_in_identifiers() {
        assert_eq!(hits("docs/a.md", "Orders.\nThe desk takes it.\n"), one(2, "desk"));
        assert_eq!(hits("host/a.rs", "let deskOf = \"a desktop\";"), one(1, "desk"));
        assert_eq!(hits("host/a.rs", "// TILL_OF\n"), one(1, "till"));
        assert_eq!(hits("host/old_desk.rs", ""), one(0, "desk"));
    }

    #[test]
    fn names_are_found_in_code_and_in_backticks_only() {
        assert_eq!(hits("host/a.rs", "// A Window.\nstruct Window;\n"), one(2, "Window"));
        assert_eq!(hits("host/a.rs", "/// See `Window::new`.\n"), one(1, "Window"));
        assert_eq!(hits("host/nostr/a.rs", "struct Post;\n"), one(1, "Post"));
        assert_eq!(hits("host/http/a.rs", "struct Post;\n"), []);
    }

    #[test]
    fn functions_are_found_where_they_are_defined() {
        assert_eq!(hits("host/a.rs", "x.consider();\nfn consider() {}\n"), one(2, "consider"));
    }

    #[test]
    fn phrases_run_over_lines_but_not_over_sentences() {
        assert_eq!(hits("host/a.rs", "/// A page for\n/// who buys.\n"), one(2, "for who"));
        assert_eq!(hits("docs/a.md", "What it is for. Who buys, pays.\n"), []);
        assert_eq!(hits("docs/a.md", "He pays.\n"), one(1, "he"));
        assert_eq!(hits("docs/a.md", "It is her pod, here.\n"), one(1, "her"));
    }

    #[test]
    fn stored_forms_are_allowed() {
        assert_eq!(hits("host/a.rs", "#[serde(rename = \"door\")]\n"), []);
        assert_eq!(hits("host/a.rs", "const A: &str = \"door\";\n"), one(1, "door"));
    }

    #[test]
    fn exceptions_need_a_reason() {
        assert!(Vocabulary::parse("", "desk | a | * |").is_err());
        assert!(Vocabulary::parse("", "desk | a | * | furniture").is_ok());
    }

    #[test]
    fn identifiers_have_words() {
        assert_eq!(segments("HTTPDoor_of2"), ["http", "door", "of2"]);
        assert_eq!(segments("ALL_DOORS"), ["all", "doors"]);
    }

    #[test]
    fn the_tree_has_none() {
        super::check(&crate::checks::files::tracked().unwrap()).unwrap();
    }
}
