//! Errors with their sources, for people and logs.

use std::error::Error;

/// An error and its sources in one line: the outermost one often says only that there was one. A
/// source that the text before it quotes already is left out.
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let cause = inner.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    /// The outermost first.
    fn chain(texts: &[&'static str]) -> String {
        let wrap = |source, text: &&'static str| Some(Box::new(Layer { text, source }));
        error_chain(&*texts.iter().rev().fold(None, wrap).unwrap())
    }

    #[test]
    fn each_cause_is_printed_once() {
        let texts = ["no relay", "connecting failed (refused)", "refused"];
        assert_eq!(chain(&texts), "no relay: connecting failed (refused)");
        let texts = ["x.toml cannot be read", "no such file"];
        assert_eq!(chain(&texts), "x.toml cannot be read: no such file");
        assert_eq!(chain(&["alone"]), "alone");
    }
}
