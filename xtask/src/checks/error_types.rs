//! No error is a bare `String`: a caller could not tell one from another, and its source would be
//! lost. Tests in directories of their own may do as they like.

use super::files::SourceFile;
use super::rust_source::code_only;
use anyhow::{Result, bail};

const RESULT: &str = "Result<";

pub(crate) fn check(files: &[SourceFile]) -> Result<()> {
    let sources = files.iter().filter(|file| file.is_rust() && file.path.contains("/src/"));
    let found: Vec<String> = sources.flat_map(string_errors).collect();
    if found.is_empty() {
        return Ok(());
    }
    bail!("{} errors are a bare String; make each a type:\n{}", found.len(), found.join("\n"))
}

fn string_errors(file: &SourceFile) -> Vec<String> {
    let code = code_only(&file.text);
    let mut found = Vec::new();
    for (at, result) in code.match_indices(RESULT) {
        let arguments = code.get(at.saturating_add(result.len())..).unwrap_or_default();
        let error = second_argument(arguments).unwrap_or_default();
        let error = error.trim().trim_end_matches(',').trim_end();
        if error == "String" || error.ends_with("::String") {
            let before = code.get(..at).unwrap_or_default();
            let line = before.matches('\n').count().saturating_add(1);
            found.push(format!("{}:{line}", file.path));
        }
    }
    found
}

/// What follows the first comma of the generic arguments that begin here.
fn second_argument(text: &str) -> Option<&str> {
    let (mut depth, mut from, mut before) = (0_usize, None, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '<' | '(' | '[' => depth = depth.saturating_add(1),
            // The arrow of a function's type.
            '>' if before == '-' => {}
            '>' if depth == 0 => return text.get(from?..at),
            '>' | ')' | ']' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 && from.is_none() => from = Some(at.saturating_add(1)),
            _ => {}
        }
        before = c;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{SourceFile, check, string_errors};

    fn found(text: &str) -> Vec<String> {
        string_errors(&SourceFile { path: "host/a/src/a.rs".to_owned(), text: text.to_owned() })
    }

    #[test]
    fn an_error_that_is_a_string_is_found() {
        for text in [
            "\nfn a() -> Result<(), String> {}\n",
            "\nfn a() -> std::result::Result<Vec<(u8, u8)>, std::string::String>;\n",
            "\ntype A<T> = Result<\n    fn(T) -> u8,\n    String,\n>;\n",
        ] {
            assert_eq!(found(text), ["host/a/src/a.rs:2"], "{text}");
        }
    }

    #[test]
    fn a_value_that_is_one_is_not() {
        for text in [
            "fn a() -> Result<String>;",
            "fn a() -> Result<BTreeMap<u8, String>>;",
            "fn a() -> Result<(u8, String), Error>;",
            "// Result<(), String>\nconst A: &str = \"Result<(), String>\";",
        ] {
            assert_eq!(found(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn the_tree_has_none() {
        check(&crate::checks::files::tracked().unwrap()).unwrap();
    }
}
