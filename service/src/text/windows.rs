//! Windows over a text. Up to a page it is one. What is longer is cut into pages, at blanks where there are any and
//! overlapping by a sentence. Of what is longer than two, each sentence is a window as well: a judge that reads a page
//! at once gives a single sentence of it little weight.

/// Characters of a page, at most.
const PAGE: usize = 1200;

/// How far a page reaches back into the one before it, so that what is cut in one stands whole in the other.
const OVERLAP: usize = 200;

/// Of texts above so many characters sentences are windows. It costs as much again, and the worst of many sentences is
/// worse than any page: below this more harmless texts would be flagged than harmful ones found
/// (models/heads/README.md).
const SENTENCES_ABOVE: usize = 2 * PAGE;

/// Characters of a sentence, at most; a longer one is cut.
const SENTENCE: usize = 300;

/// A shorter one goes with the next: one word says little, and there are many.
const SENTENCE_LEAST: usize = 24;

/// A cut looks so far back for a blank.
const LOOK_BACK: usize = 100;

/// What ends a sentence where a blank or nothing follows; the second line does by itself.
const ENDS: [char; 7] = ['.', '!', '?', '…', '؟', '।', '۔'];
const ENDS_ALONE: [char; 5] = ['。', '！', '？', '\n', '\r'];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window<'a> {
    pub(super) text: &'a str,
    /// In characters of the whole text, from 0; `end` is the character after the last.
    pub(super) start: u64,
    pub(super) end: u64,
}

/// A text by its characters.
struct Characters<'a> {
    text: &'a str,
    /// Where each begins, in bytes; and where the last one ends.
    at: Vec<usize>,
}

impl<'a> Characters<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: text.char_indices().map(|(at, _)| at).chain([text.len()]).collect() }
    }

    fn count(&self) -> usize {
        self.at.len() - 1
    }

    fn piece(&self, start: usize, end: usize) -> &'a str {
        let byte = |character: usize| self.at.get(character).copied().unwrap_or(self.text.len());
        self.text.get(byte(start)..byte(end)).unwrap_or_default()
    }

    fn get(&self, at: usize) -> Option<char> {
        self.piece(at, at + 1).chars().next()
    }

    fn is_blank(&self, at: usize) -> bool {
        self.get(at).is_none_or(char::is_whitespace)
    }

    fn window(&self, start: usize, end: usize) -> Window<'a> {
        Window { text: self.piece(start, end), start: start as u64, end: end as u64 }
    }

    /// Behind the last blank before `end`, if one is near, else there.
    fn cut(&self, end: usize) -> usize {
        let near = end.saturating_sub(LOOK_BACK)..end;
        near.rev().find(|at| self.is_blank(*at)).map_or(end, |at| at + 1)
    }

    fn pages(&self) -> Vec<Window<'a>> {
        let (count, mut windows, mut start) = (self.count(), Vec::new(), 0);
        loop {
            let furthest = count.min(start + PAGE);
            let end = if furthest == count { count } else { self.cut(furthest) };
            windows.push(self.window(start, end));
            if end == count {
                return windows;
            }
            start = self.cut(end - OVERLAP);
        }
    }

    fn sentences(&self) -> Vec<Window<'a>> {
        let (count, mut windows, mut start) = (self.count(), Vec::new(), 0);
        while start < count {
            if self.is_blank(start) {
                start += 1;
                continue;
            }
            let furthest = count.min(start + SENTENCE);
            let least = count.min(start + SENTENCE_LEAST);
            let ends = |at: &usize| {
                self.get(at - 1).is_some_and(|last| {
                    ENDS_ALONE.contains(&last) || (ENDS.contains(&last) && self.is_blank(*at))
                })
            };
            let end = (least..=furthest).find(ends);
            let end = end.unwrap_or_else(|| if furthest == count { count } else { self.cut(furthest) });
            windows.push(self.window(start, end));
            start = end;
        }
        windows
    }
}

pub(super) fn of(text: &str) -> Vec<Window<'_>> {
    let characters = Characters::of(text);
    let mut windows = characters.pages();
    if characters.count() > SENTENCES_ABOVE {
        windows.extend(characters.sentences());
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(text: &str) -> Vec<Window<'_>> {
        Characters::of(text).pages()
    }

    #[test]
    fn short_is_one_and_long_overlaps_at_blanks() {
        let one = of("ä short text. It has two sentences.");
        assert_eq!(one, [Window { text: "ä short text. It has two sentences.", start: 0, end: 35 }]);
        let text: String = (0..900).map(|n| format!("wört{n} ")).collect();
        let windows = pages(&text);
        assert!(windows.len() > 5);
        for pair in windows.windows(2) {
            let (one, next) = (pair[0], pair[1]);
            let shared = one.end - next.start;
            assert!((OVERLAP as u64..=(OVERLAP + LOOK_BACK) as u64).contains(&shared), "{shared}");
            assert!(one.end - one.start <= PAGE as u64);
            assert!(one.text.ends_with(' ') && next.text.starts_with("wört"));
        }
        assert_eq!(windows.last().map(|window| window.end), Some(text.chars().count() as u64));
    }

    #[test]
    fn without_blanks_it_goes_on_all_the_same() {
        let text = "漢".repeat(5000);
        let windows = pages(&text);
        assert!(windows.iter().all(|window| window.text.chars().count() <= PAGE));
        assert_eq!(windows.last().map(|window| window.end), Some(5000));
        assert!(windows.len() < 5000 / (PAGE - OVERLAP) + 2);
        let sentences = Characters::of(&text).sentences();
        assert_eq!(sentences.len(), 5000_usize.div_ceil(SENTENCE));
    }

    #[test]
    fn each_sentence_of_a_long_text_is_a_window() {
        let sentences = [
            "The first one is here, and ends. ",
            "Version 1.2 of it is no end; this is… ",
            "你好。这是第二个句子，它相当长，所以它自己就是一个窗口。",
            "Is this the last one of them all?\n\n  ",
            "No. Yes. Short ones go with the next.",
        ];
        let text = sentences.concat();
        let found: Vec<&str> =
            Characters::of(&text).sentences().iter().map(|window| window.text.trim()).collect();
        assert_eq!(found, sentences.map(str::trim));

        let long = format!("{text} {}", "and so it goes on and on ".repeat(100));
        let windows = of(&long);
        for sentence in sentences {
            assert!(windows.iter().any(|window| window.text.trim() == sentence.trim()), "{sentence}");
        }
        let characters: Vec<char> = long.chars().collect();
        for window in windows {
            let (start, end) = (window.start as usize, window.end as usize);
            assert_eq!(characters[start..end].iter().collect::<String>(), window.text);
        }
    }
}
