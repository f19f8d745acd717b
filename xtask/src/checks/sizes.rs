//! No file over 500 lines; no function over 50, unless `// long: …` above it, or at its beginning,
//! says why. The README stays short.

use super::files::SourceFile;
use super::rust_source::code_only;
use anyhow::{Result, bail};

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 50;
const README: &str = "README.md";
const README_WORDS: usize = 700;
const REASON: &str = "// long:";
/// How far above a function, or below its first line, its reason may be.
const NEAR: usize = 6;

pub(crate) fn check(files: &[SourceFile]) -> Result<()> {
    let rust = files.iter().filter(|file| file.is_rust());
    let readme = files.iter().filter(|file| file.path == README);
    let found: Vec<String> =
        rust.flat_map(too_long).chain(readme.filter_map(too_many_words)).collect();
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} files and functions are too long:\n{}", found.len(), found.join("\n"))
}

fn too_long(file: &SourceFile) -> Vec<String> {
    let SourceFile { path, text } = file;
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES {
        found.push(format!("{path}: {lines} lines"));
    }
    for Function { name, first, lines } in functions(text) {
        if lines > FUNCTION_LINES && !has_reason(text, first) {
            found.push(format!("{path}:{first}: fn {name}: {lines} lines"));
        }
    }
    found
}

/// As `wc -w` counts them.
fn too_many_words(SourceFile { path, text }: &SourceFile) -> Option<String> {
    let words = text.split_whitespace().count();
    (words > README_WORDS).then(|| format!("{path}: {words} words"))
}

struct Function<'a> {
    name: &'a str,
    /// The line of `fn`, from one.
    first: usize,
    lines: usize,
}

fn functions(text: &str) -> Vec<Function<'_>> {
    let code = code_only(text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code.get(..at).unwrap_or_default();
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let after = code.get(at..).unwrap_or_default();
        let Some(length) = body_end(after) else { continue };
        let name = text.get(at.saturating_add(3)..).unwrap_or_default();
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
        found.push(Function {
            name: name.get(..end).unwrap_or_default(),
            first: before.matches('\n').count().saturating_add(1),
            lines: after.get(..length).unwrap_or_default().lines().count(),
        });
    }
    found
}

/// Where the function's body ends; none if it has none.
fn body_end(code: &str) -> Option<usize> {
    let (mut depth, mut brackets) = (0_usize, 0_usize);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' if depth == 0 => brackets = brackets.saturating_add(1),
            ')' | ']' if depth == 0 => brackets = brackets.saturating_sub(1),
            ';' if depth == 0 && brackets == 0 => return None,
            // A function pointer's type, `fn (…)`, ends with what it is in.
            '}' if depth == 0 => return None,
            '{' => depth = depth.saturating_add(1),
            '}' if depth == 1 => return Some(at.saturating_add(1)),
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

fn has_reason(text: &str, first: usize) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let at = first.saturating_sub(1);
    // Attributes and comments above; the signature's lines and the first of the body below.
    let above = lines.get(at.saturating_sub(NEAR)..at).unwrap_or_default().iter().rev();
    let mut above = above.take_while(|line| line.trim().starts_with(['/', '#']));
    let below = lines.get(at..at.saturating_add(NEAR).min(lines.len())).unwrap_or_default();
    above.any(|line| says_why(line)) || below.iter().any(|line| says_why(line))
}

fn says_why(line: &str) -> bool {
    line.split_once(REASON).is_some_and(|(_, reason)| !reason.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::{README, SourceFile, check, too_long};

    fn found(text: &str) -> Vec<String> {
        too_long(&SourceFile { path: "a.rs".to_owned(), text: text.to_owned() })
    }

    fn function(before: &str, lines: usize) -> String {
        format!("{before}pub(crate) fn long(a: [u8; 3]) {{\n{}}}\n", "    f();\n".repeat(lines))
    }

    #[test]
    fn a_long_function_is_found() {
        assert_eq!(found(&function("", 48)), Vec::<String>::new());
        assert_eq!(found(&function("\n", 49)), ["a.rs:2: fn long: 51 lines"]);
        assert_eq!(
            found("trait A {\n    fn a();\n}\nstruct B(fn (u8) -> u8);\n"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_reason_makes_it_right() {
        assert_eq!(found(&function("// long: a table\n#[test]\n", 60)), Vec::<String>::new());
        assert_eq!(found(&function("// long: \n", 60)).len(), 1);
        assert_eq!(found(&function("// long: of another\n\n", 60)).len(), 1);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(found(&"\n".repeat(500)), Vec::<String>::new());
        assert_eq!(found(&"\n".repeat(501)), ["a.rs: 501 lines"]);
    }

    #[test]
    fn a_long_readme_is_found() {
        let file = |path: &str, words: usize| {
            [SourceFile { path: path.to_owned(), text: "a word\n".repeat(words / 2) }]
        };
        assert!(check(&file(README, 700)).is_ok());
        let found = check(&file(README, 702)).unwrap_err().to_string();
        assert!(found.ends_with("README.md: 702 words"), "{found}");
        assert!(check(&file("docs/README.md", 702)).is_ok());
    }

    #[test]
    fn the_tree_has_none() {
        check(&crate::checks::files::tracked().unwrap()).unwrap();
    }
}
