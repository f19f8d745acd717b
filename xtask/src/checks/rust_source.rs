//! Rust source without its comments and the contents of its literals, line for line.

/// Blanks comments and the contents of string and character literals; newlines stay, so that
/// offsets and line numbers are those of the file.
pub(crate) fn code_only(text: &str) -> String {
    let mut scanner = Scanner { rest: text, code: String::with_capacity(text.len()) };
    while scanner.advance() {}
    scanner.code
}

struct Scanner<'a> {
    rest: &'a str,
    code: String,
}

impl<'a> Scanner<'a> {
    /// Takes one token that matters here: a comment, a literal, a word, or a single character.
    fn advance(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        if self.rest.starts_with("//") {
            let length = self.rest.find('\n').unwrap_or(self.rest.len());
            self.blank(length);
        } else if self.rest.starts_with("/*") {
            let length = block_comment(self.rest);
            self.blank(length);
        } else if first == '"' {
            self.literal(0, string(self.rest));
        } else if first == '\'' {
            match character(self.rest) {
                Some(length) => self.literal(0, length),
                None => self.keep(1),
            }
        } else if first.is_alphabetic() || first == '_' {
            self.word();
        } else {
            self.keep(first.len_utf8());
        }
        true
    }

    /// An identifier, or the prefix of a literal: `r#"…"#`, `b"…"`, `br"…"`, `c"…"`.
    fn word(&mut self) {
        let length =
            self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, after) = self.rest.split_at(length);
        let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
        if matches!(word, "r" | "br" | "cr") && after.get(hashes..).is_some_and(is_quote) {
            let end = format!("\"{}", "#".repeat(hashes));
            let opening = length.saturating_add(hashes).saturating_add(1);
            let body = self.rest.get(opening..).and_then(|body| body.find(&end));
            let closed = body.map_or(self.rest.len(), |body| {
                opening.saturating_add(body).saturating_add(end.len())
            });
            self.literal(length, closed);
        } else if matches!(word, "b" | "c") && is_quote(after) {
            self.literal(length, length.saturating_add(string(after)));
        } else {
            self.keep(length);
        }
    }

    fn keep(&mut self, length: usize) {
        let (kept, rest) = self.rest.split_at(length);
        self.code.push_str(kept);
        self.rest = rest;
    }

    fn blank(&mut self, length: usize) {
        let (blanked, rest) = self.rest.split_at(length);
        // A space a byte: offsets stay.
        self.code.extend(blanked.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        self.rest = rest;
    }

    /// A literal's quotes stay, so that `""` is still an expression.
    fn literal(&mut self, prefix: usize, length: usize) {
        self.keep(prefix);
        let inner = length.saturating_sub(prefix);
        if inner < 2 {
            return self.keep(inner);
        }
        self.keep(1);
        self.blank(inner.saturating_sub(2));
        self.keep(1);
    }
}

fn is_quote(text: &str) -> bool {
    text.starts_with('"')
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0_usize);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let step = if rest.starts_with("/*") {
            depth = depth.saturating_add(1);
            2
        } else if rest.starts_with("*/") {
            depth = depth.saturating_sub(1);
            2
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
        at = at.saturating_add(step);
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a string literal that begins with its quote.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at.saturating_add(1),
            _ => {}
        }
    }
    text.len()
}

/// The length of a character literal; none if the quote begins a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().skip(1);
    let (_, first) = characters.next()?;
    if first == '\\' {
        let (from, _) = characters.nth(1)?;
        return text.get(from..)?.find('\'').map(|end| from.saturating_add(end).saturating_add(1));
    }
    characters.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::code_only;

    #[test]
    fn comments_and_literals_are_blank() {
        let text =
            "let a = \"desk // {\"; // desk {\n/* a /* b */ { */ let b = r#\"}\"{\"#; 'x: loop {}";
        let code = code_only(text);
        assert_eq!(code.len(), text.len());
        assert!(!code.contains("desk"));
        assert_eq!(code.matches('{').count(), 1);
        assert_eq!(code.matches('}').count(), 1);
        assert!(code.contains("'x: loop"));
    }

    #[test]
    fn characters_are_no_lifetimes() {
        let code = code_only(
            r"match c { '{' => 1, '\'' => 2, '\\' => 3, '\u{7d}' => 4, b'}' => 5, _ => f::<'a>() }",
        );
        assert_eq!(code.matches('{').count(), 1);
        assert_eq!(code.matches('}').count(), 1);
        assert!(code.contains("f::<'a>()"));
    }
}
