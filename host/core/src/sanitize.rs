//! Untrusted text, made safe for terminals and logs.

/// One line of at most `most` characters. Control sequences and line breaks are escaped.
#[must_use]
pub fn plain(text: &str, most: usize) -> String {
    let mut line = String::new();
    for (count, character) in text.chars().enumerate() {
        if count >= most {
            line.push('…');
            break;
        }
        match is_plain(character) {
            true => line.push(character),
            false => line.extend(character.escape_unicode()),
        }
    }
    line
}

/// A text of several lines: line breaks and tabs stay, other control sequences are escaped as JSON
/// escapes them, so that JSON stays JSON.
#[must_use]
pub fn plain_lines(text: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    for character in text.chars() {
        match is_plain(character) || matches!(character, '\n' | '\t') {
            true => lines.push(character),
            false => lines.push_str(&format!("\\u{:04x}", u32::from(character))),
        }
    }
    lines
}

/// Neither a control character nor one that changes the direction of the text after it.
#[must_use]
pub fn is_plain(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_text_is_left() {
        assert_eq!(plain("préfixe: 1 sat", 100), "préfixe: 1 sat");
        assert_eq!(
            plain("a\u{1b}]52;c\u{7}\nb\u{202e}c\u{9b}", 100),
            "a\\u{1b}]52;c\\u{7}\\u{a}b\\u{202e}c\\u{9b}"
        );
        assert_eq!(plain("abcdef", 3), "abc…");
        assert_eq!(plain("abc", 3), "abc");
        let text = "{\n\t\"a\": \"\u{9b}1m\u{202e}\"}";
        let printed = plain_lines(text);
        assert_eq!(printed, "{\n\t\"a\": \"\\u009b1m\\u202e\"}");
        let values: [serde_json::Value; 2] =
            [text, &printed].map(|json| serde_json::from_str(json).unwrap());
        assert_eq!(values[0], values[1]);
        assert_eq!(plain_lines("\u{1b}[2J"), "\\u001b[2J");
    }
}
