//! Text in, windows out: what a judge of text may look at. [`look`] is pure.
//!
//! A text is judged whole. What is longer than a page is cut into pages that overlap, and into its sentences where
//! there are many, for a judge that reads a page at once gives a single sentence of it little weight. Each window is
//! judged as it was written and, where that differs, folded: without what hides words from judges and not from
//! people ([`fold`]).

mod fold;
mod windows;

use std::collections::HashSet;
use std::sync::Arc;

pub use fold::fold;

use crate::verdict::{Form, TextExtent, WindowAt};

/// Part of every text judge's digest: raise it whenever any text may come out in other windows or forms.
pub const PIPELINE_VERSION: &str = "text-2";

/// One window in one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub text: Arc<str>,
    pub at: WindowAt,
}

/// What was found, and the views to judge (never none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    pub extent: TextExtent,
    pub views: Vec<View>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("the text is empty; send what is to be judged")]
    Empty,
    #[error("the text has {bytes} bytes, at most {bytes_max} are accepted")]
    TooLong { bytes: u64, bytes_max: u64 },
    #[error("the text is not UTF-8; byte {at} begins no character")]
    NotUtf8 { at: usize },
}

impl TextError {
    /// Machine-readable and stable: clients branch on it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "text_empty",
            Self::TooLong { .. } => "text_too_long",
            Self::NotUtf8 { .. } => "text_not_utf8",
        }
    }
}

/// Takes some milliseconds a megabyte.
pub fn look(bytes: &[u8], bytes_max: u64) -> Result<Looked, TextError> {
    let length = bytes.len() as u64;
    if length > bytes_max {
        return Err(TextError::TooLong { bytes: length, bytes_max });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| TextError::NotUtf8 { at: error.valid_up_to() })?;
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    let mut views = Vec::new();
    // What stands there again word for word is judged once, where it stands first.
    let mut known: HashSet<&str> = HashSet::new();
    for window in windows::of(text) {
        if !known.insert(window.text) {
            continue;
        }
        let (start, end) = (window.start, window.end);
        let at = |form| WindowAt { start, end, form };
        views.push(View { text: window.text.into(), at: at(Form::Written) });
        let folded = fold(window.text);
        if folded != window.text && !folded.trim().is_empty() {
            views.push(View { text: folded.into(), at: at(Form::Folded) });
        }
    }
    Ok(Looked { extent: TextExtent { characters: text.chars().count() as u64 }, views })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_plain_text_is_one_view() {
        let looked = look("A plain text.".as_bytes(), 100).expect("a text");
        assert_eq!(looked.extent.characters, 13);
        let [view] = looked.views.as_slice() else { panic!("{looked:?}") };
        assert_eq!(&*view.text, "A plain text.");
        assert_eq!(view.at, WindowAt { start: 0, end: 13, form: Form::Written });
    }

    #[test]
    fn what_hides_is_shown_in_both_forms() {
        let looked = look("k\u{200b}ill".as_bytes(), 100).expect("a text");
        let forms: Vec<_> = looked.views.iter().map(|view| (&*view.text, view.at.form)).collect();
        assert_eq!(forms, [("k\u{200b}ill", Form::Written), ("kill", Form::Folded)]);
    }

    #[test]
    fn every_character_is_in_a_window_and_repetitions_are_judged_once() {
        let text: String = (0..4000).map(|n| format!("word{n} ")).collect();
        let looked = look(text.as_bytes(), 1 << 20).expect("a text");
        let characters: Vec<char> = text.chars().collect();
        let mut seen = vec![false; characters.len()];
        for view in looked.views.iter().filter(|view| view.at.form == Form::Written) {
            let (start, end) = (view.at.start as usize, view.at.end as usize);
            assert_eq!(characters[start..end].iter().collect::<String>(), *view.text);
            seen[start..end].fill(true);
        }
        assert!(seen.iter().all(|seen| *seen));
        let repeated = look("spam ".repeat(100_000).as_bytes(), 1 << 20).expect("a text");
        assert!(repeated.views.len() < 80, "{}", repeated.views.len());
    }

    #[test]
    fn what_is_no_text_is_named() {
        assert_eq!(look(b"", 9), Err(TextError::Empty));
        assert_eq!(look(b"ab\xff", 9), Err(TextError::NotUtf8 { at: 2 }));
        assert_eq!(look(&[b'a'; 10], 9), Err(TextError::TooLong { bytes: 10, bytes_max: 9 }));
        // Blank is not empty, and is judged as it is.
        assert_eq!(look(b" \n", 9).expect("a text").views.len(), 1);
    }
}
