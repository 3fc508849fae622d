//! Windows over a text: of about a paragraph, cut at blanks where there are any, overlapping by a sentence.

/// Characters of a window, at most.
const WINDOW: usize = 600;

/// How far a window reaches back into the one before it, so that what is cut in one stands whole in the other.
const OVERLAP: usize = 120;

/// A cut looks so far back for a blank.
const LOOK_BACK: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window<'a> {
    pub(super) text: &'a str,
    /// In characters of the whole text, from 0; `end` is the character after the last.
    pub(super) start: u64,
    pub(super) end: u64,
}

pub(super) fn of(text: &str) -> Vec<Window<'_>> {
    // Where each character begins, in bytes; and where the last one ends.
    let mut at: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let count = at.len();
    at.push(text.len());
    let byte = |character: usize| at.get(character).copied().unwrap_or(text.len());
    let piece = |start: usize, end: usize| text.get(byte(start)..byte(end)).unwrap_or_default();
    let blank = |character: usize| piece(character, character + 1).chars().all(char::is_whitespace);
    let mut windows = Vec::new();
    let mut start = 0;
    loop {
        let furthest = count.min(start + WINDOW);
        let end = if furthest == count {
            count
        } else {
            // Behind a blank, if one is near.
            (furthest - LOOK_BACK..furthest).rev().find(|c| blank(*c)).map_or(furthest, |c| c + 1)
        };
        windows.push(Window { text: piece(start, end), start: start as u64, end: end as u64 });
        if end == count {
            return windows;
        }
        let back = end - OVERLAP;
        start = (back - LOOK_BACK..back).rev().find(|c| blank(*c)).map_or(back, |c| c + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_is_one_and_long_overlaps_at_blanks() {
        let one = of("ä short text");
        assert_eq!(one, [Window { text: "ä short text", start: 0, end: 12 }]);
        let text: String = (0..500).map(|n| format!("wört{n} ")).collect();
        let windows = of(&text);
        assert!(windows.len() > 5);
        for pair in windows.windows(2) {
            let (one, next) = (pair[0], pair[1]);
            let shared = one.end - next.start;
            assert!((OVERLAP as u64..=(OVERLAP + LOOK_BACK) as u64).contains(&shared), "{shared}");
            assert!(one.end - one.start <= WINDOW as u64);
            assert!(one.text.ends_with(' ') && next.text.starts_with("wört"));
        }
        assert_eq!(windows.last().map(|window| window.end), Some(text.chars().count() as u64));
    }

    #[test]
    fn without_blanks_it_goes_on_all_the_same() {
        let text = "漢".repeat(5000);
        let windows = of(&text);
        assert!(windows.iter().all(|window| window.text.chars().count() <= WINDOW));
        assert_eq!(windows.last().map(|window| window.end), Some(5000));
        assert!(windows.len() < 5000 / (WINDOW - OVERLAP) + 2);
    }
}
