//! No cycles between the modules of a crate.
//!
//! An edge is a path in code: `crate::a::B`, `super::b`, or `a::B` for a module of the same file.
//! What a module only passes on (`pub use a::B`) belongs to `a`. Tests may use what they like.

use super::files::SourceFile;
use super::rust_source::code_only;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// A module's path; the crate's root has none.
type ModulePath = Vec<String>;

pub(crate) fn check(files: &[SourceFile]) -> Result<()> {
    let mut crates = BTreeMap::<&str, Vec<(&str, &str)>>::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        if let Some((root, module)) = file.path.split_once("/src/") {
            crates.entry(root).or_default().push((module, &file.text));
        }
    }
    let mut found = Vec::new();
    for (root, files) in crates {
        found.extend(cycles(&files).into_iter().map(|cycle| format!("{root}:\n{cycle}")));
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} cycles between modules\n{}", found.len(), found.join("\n"))
}

/// Each cycle as its edges, a line each. Files are named from `src/`.
fn cycles(files: &[(&str, &str)]) -> Vec<String> {
    let krate = Crate::read(files);
    let mut edges = BTreeMap::<(ModulePath, ModulePath), String>::new();
    for (module, source) in &krate.modules {
        for reference in &source.references {
            let target = krate.resolve(&reference.path);
            if target != *module && !reference.is_reexport {
                let place = format!("{}:{}", source.file, reference.line);
                edges.entry((module.clone(), target)).or_insert(place);
            }
        }
    }
    let mut next = BTreeMap::<&ModulePath, Vec<&ModulePath>>::new();
    for (from, to) in edges.keys() {
        next.entry(from).or_default().push(to);
    }
    let mut found = BTreeMap::<BTreeSet<&ModulePath>, Vec<String>>::new();
    for ((from, to), place) in &edges {
        let back = reachable(to, &next);
        if back.contains(from) {
            // All that reach each other are one cycle.
            let members = back.iter().copied().filter(|m| reachable(m, &next).contains(from));
            let edge = format!("  {} -> {} ({place})", name(from), name(to));
            found.entry(members.collect()).or_default().push(edge);
        }
    }
    found.into_values().map(|edges| edges.join("\n")).collect()
}

fn reachable<'a>(
    from: &'a ModulePath,
    next: &BTreeMap<&'a ModulePath, Vec<&'a ModulePath>>,
) -> BTreeSet<&'a ModulePath> {
    let (mut seen, mut open) = (BTreeSet::from([from]), vec![from]);
    while let Some(module) = open.pop() {
        for to in next.get(module).into_iter().flatten() {
            if seen.insert(to) {
                open.push(to);
            }
        }
    }
    seen
}

fn name(module: &ModulePath) -> String {
    if module.is_empty() { "(root)".to_owned() } else { module.join("::") }
}

struct Reference {
    /// From the crate's root.
    path: Vec<String>,
    line: usize,
    is_reexport: bool,
}

struct Source {
    file: String,
    references: Vec<Reference>,
}

struct Crate {
    modules: BTreeMap<ModulePath, Source>,
    /// The full path of what is passed on, by the path under which it is.
    reexports: BTreeMap<Vec<String>, Vec<String>>,
}

impl Crate {
    fn read(files: &[(&str, &str)]) -> Self {
        let is_part = |file: &&(&str, &str)| !file.0.starts_with("bin/") && file.0 != "main.rs";
        let has_library = files.iter().any(|(file, _)| *file == "lib.rs");
        let files: Vec<_> = files.iter().filter(|file| !has_library || is_part(file)).collect();
        let names: BTreeSet<ModulePath> = files.iter().map(|(file, _)| module_of(file)).collect();
        let (mut modules, mut reexports) = (BTreeMap::new(), BTreeMap::new());
        for (file, text) in files {
            let module = module_of(file);
            if module.iter().any(|part| part == "tests") {
                continue;
            }
            let references = references(&module, &code_only(text), &names);
            for reference in references.iter().filter(|reference| reference.is_reexport) {
                if let Some(last) = reference.path.last() {
                    let mut at = module.clone();
                    at.push(last.clone());
                    reexports.insert(at, reference.path.clone());
                }
            }
            modules.insert(module, Source { file: (*file).to_owned(), references });
        }
        Self { modules, reexports }
    }

    /// The module that has what the path names.
    fn resolve(&self, path: &[String]) -> ModulePath {
        let mut path = path.to_vec();
        // As long as a part of it is passed on from elsewhere; two modules may pass on in a circle.
        for _ in 0..8 {
            let moved = (1..=path.len()).rev().find_map(|end| {
                let (head, tail) = path.split_at_checked(end)?;
                let to = self.reexports.get(head).filter(|to| to.as_slice() != head)?;
                Some([to.as_slice(), tail].concat())
            });
            match moved {
                Some(moved) => path = moved,
                None => break,
            }
        }
        while !path.is_empty() && !self.modules.contains_key(&path) {
            path.pop();
        }
        path
    }
}

fn module_of(file: &str) -> ModulePath {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let mut parts: ModulePath = path.split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// The paths in a file's code, except in modules of tests.
fn references(module: &ModulePath, code: &str, names: &BTreeSet<ModulePath>) -> Vec<Reference> {
    let tokens = tokens(code);
    let word = |at: usize| tokens.get(at).map_or("", |token| token.1);
    let (mut found, mut inside, mut at) = (Vec::new(), Vec::<(String, usize)>::new(), 0_usize);
    let (mut depth, mut is_reexport) = (0_usize, false);
    while let Some((line, token)) = tokens.get(at) {
        match *token {
            "{" => depth = depth.saturating_add(1),
            "}" => {
                depth = depth.saturating_sub(1);
                inside.retain(|(_, from)| *from < depth.saturating_add(1));
            }
            "mod" if word(at.saturating_add(2)) == "{" => {
                inside.push((word(at.saturating_add(1)).to_owned(), depth.saturating_add(1)));
            }
            "use" => {
                let before = at.checked_sub(1).map_or("", word);
                is_reexport = before == "pub" || before == ")";
            }
            ";" => is_reexport = false,
            _ => {}
        }
        let follows_path = at.checked_sub(1).is_some_and(|before| word(before) == "::");
        let nested = inside.iter().map(|(name, _)| name.clone());
        let here: ModulePath = module.iter().cloned().chain(nested).collect();
        let begins = word(at.saturating_add(1)) == "::" && !follows_path;
        let base = match *token {
            _ if !begins => None,
            "crate" => Some(Vec::new()),
            "self" => Some(here.clone()),
            "super" => Some(here.iter().take(here.len().saturating_sub(1)).cloned().collect()),
            child => Some([here.as_slice(), &[child.to_owned()]].concat())
                .filter(|path| names.contains(path)),
        };
        let is_test = inside.iter().any(|(name, _)| name == "tests");
        if let Some(base) = base.filter(|_| !is_test) {
            let mut paths = Vec::new();
            tree(&tokens, at.saturating_add(2), base, &mut paths);
            found.extend(paths.into_iter().map(|path| Reference {
                path,
                line: *line,
                is_reexport,
            }));
        }
        at = at.saturating_add(1);
    }
    found
}

/// What follows `::`: a name, more of a path, or braces with several; gives where it ends.
fn tree(
    tokens: &[(usize, &str)],
    mut at: usize,
    mut base: Vec<String>,
    paths: &mut Vec<Vec<String>>,
) -> usize {
    let word = |at: usize| tokens.get(at).map_or("", |token| token.1);
    loop {
        match word(at) {
            "{" => {
                at = at.saturating_add(1);
                while !matches!(word(at), "}" | "") {
                    at = tree(tokens, at, base.clone(), paths);
                    while !matches!(word(at), "," | "}" | "") {
                        at = at.saturating_add(1);
                    }
                    at = at.saturating_add(usize::from(word(at) == ","));
                }
                return at.saturating_add(1);
            }
            "super" => drop(base.pop()),
            "self" | "*" => {}
            name if name.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                base.push(name.to_owned());
            }
            _ => break,
        }
        at = at.saturating_add(1);
        if word(at) != "::" {
            break;
        }
        at = at.saturating_add(1);
    }
    paths.push(base);
    at
}

/// Words, `::` and single characters, with their lines.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (line, text) in (1..).zip(code.lines()) {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, after) = rest.split_at(length);
            found.push((line, token));
            rest = after.trim_start();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{check, cycles};

    #[test]
    fn a_cycle_is_found() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
            ("a.rs", "use crate::{b::{self, B}, c::C};\n"),
            ("b.rs", "fn f() {\n    super::a::g()\n}\n"),
            ("c.rs", "// use crate::a;\nconst C: &str = \"crate::a\";\n"),
        ];
        assert_eq!(cycles(&files), ["  a -> b (a.rs:1)\n  b -> a (b.rs:2)"]);
    }

    #[test]
    fn a_longer_cycle_is_one() {
        let files = [
            ("lib.rs", "mod a;\n"),
            ("a/mod.rs", "mod b;\nmod c;\nfn f() { b::f() }\n"),
            ("a/b.rs", "use super::c;\n"),
            ("a/c.rs", "use super::f;\n"),
        ];
        let expected =
            "  a -> a::b (a/mod.rs:3)\n  a::b -> a::c (a/b.rs:1)\n  a::c -> a (a/c.rs:1)";
        assert_eq!(cycles(&files), [expected]);
    }

    #[test]
    fn what_is_passed_on_belongs_to_its_module() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\npub use a::A;\npub(crate) use b::B;\n"),
            ("a.rs", "use crate::B;\n"),
            ("b.rs", "struct B;\n"),
        ];
        assert_eq!(cycles(&files), Vec::<String>::new());
        let files = [files[0], files[1], ("b.rs", "use crate::A;\n")];
        assert_eq!(cycles(&files).len(), 1);
    }

    #[test]
    fn tests_use_what_they_like() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\n"),
            ("a.rs", "use crate::b;\n"),
            (
                "b.rs",
                "fn f() {}\n#[cfg(test)]\nmod tests {\n    use super::f;\n    use crate::a;\n}\n",
            ),
        ];
        assert_eq!(cycles(&files), Vec::<String>::new());
    }

    #[test]
    fn the_tree_has_none() {
        check(&crate::checks::files::tracked().unwrap()).unwrap();
    }
}
