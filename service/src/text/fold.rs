//! Folding: the same words without the ways to hide them.
//!
//! In this order: compatibility forms (NFKC: full-width, mathematical and circled letters); characters that no
//! reader sees (zero-width, bidirectional controls, tags, variation selectors) and marks stacked on letters;
//! letters of other scripts that look like Latin ones, in words that mix both (UTS 39); digits and signs for
//! letters (`k1ll`); single letters set apart (`k i l l`). Text in one script alone keeps it.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;
use unicode_security::confusable_detection::skeleton;

pub fn fold(text: &str) -> String {
    let visible: String = text.nfkc().filter(|c| !is_invisible(*c)).collect();
    let bare = without_stacked_marks(&visible);
    let words: String = by_words(&bare).map(fold_word).collect();
    join_spelled(&words)
}

/// Takes no room on the page, or only changes how others are drawn.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Latin letters carry at most what composes with them; scripts that live by their marks keep them.
fn without_stacked_marks(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    let mut latin = false;
    for c in text.chars() {
        if is_combining_mark(c) && latin {
            continue;
        }
        latin = matches!(c, 'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}');
        bare.push(c);
    }
    bare
}

/// Runs of blanks and runs of anything else, in turn.
fn by_words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let blank = rest.chars().next()?.is_whitespace();
        let end = rest.find(|c: char| c.is_whitespace() != blank).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

fn fold_word(word: &str) -> String {
    let latin =
        if mixes_look_alikes(word) { word.chars().map(look_alike).collect() } else { word.to_owned() };
    unleeted(&latin).unwrap_or(latin)
}

/// Latin letters, or signs that only a disguise mixes in, beside look-alikes of Latin letters.
fn mixes_look_alikes(word: &str) -> bool {
    let plain = word.chars().any(|c| c.is_ascii_alphabetic());
    plain && word.chars().any(|c| !c.is_ascii() && look_alike(c) != c)
}

/// The ASCII letter that a letter of another script is drawn like; else itself.
fn look_alike(c: char) -> char {
    if c.is_ascii() || !c.is_alphabetic() {
        return c;
    }
    let small_capitals = "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡxʏᴢ";
    if let Some(at) = small_capitals.chars().position(|small| small == c) {
        return char::from(b'a' + u8::try_from(at).unwrap_or(0));
    }
    let mut alike = skeleton(c.encode_utf8(&mut [0; 4])).collect::<Vec<char>>();
    // The prototypes of I and of 0 are l and O.
    match (alike.pop(), alike.is_empty()) {
        (Some(letter), true) if letter.is_ascii_alphabetic() => letter,
        _ => c,
    }
}

/// `h4te` → `hate`; `3rd`, `mp3`, `2024` and `a@b.org` stay what they are.
fn unleeted(word: &str) -> Option<String> {
    let core = word.trim_matches(|c: char| c.is_ascii_punctuation() && !"@$!+".contains(c));
    let core = core.trim_end_matches(['!', '+']);
    if core.len() < 3 || core.contains(['.', '/', ':', '_', '-', '=', '&', '#']) {
        return None;
    }
    let letters = core.chars().filter(|c| c.is_alphabetic()).count();
    let signs = core.chars().filter(|c| letter_of(*c).is_some()).count();
    let known = core.chars().all(|c| c.is_alphabetic() || c == '\'' || letter_of(c).is_some());
    // A sign among letters, or a dollar at the head: numbers, units and ordinals are written otherwise.
    let first = core.starts_with(['$', '@']);
    let mut after_letter = false;
    let mut within = false;
    for c in core.chars() {
        // Letters, then signs, then a letter.
        within |= after_letter && letter_of(c).is_some();
        after_letter |= c.is_alphabetic();
        if within && c.is_alphabetic() {
            break;
        }
    }
    let inner = first || (within && core.chars().next_back().is_some_and(char::is_alphabetic));
    if !known || signs == 0 || letters == 0 || letters < signs || !inner {
        return None;
    }
    let folded: String = core.chars().map(|c| letter_of(c).unwrap_or(c)).collect();
    Some(word.replacen(core, &folded, 1))
}

fn letter_of(sign: char) -> Option<char> {
    Some(match sign {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' | '+' => 't',
        '8' => 'b',
        _ => return None,
    })
}

/// Four letters and more, each alone between the same signs: `k i l l`, `k.i.l.l`, `k-i-l-l`.
fn join_spelled(text: &str) -> String {
    const LETTERS_MIN: usize = 4;
    let characters: Vec<char> = text.chars().collect();
    let at = |place: usize| characters.get(place).copied();
    let alone = |place: usize| at(place).is_some_and(char::is_alphabetic);
    let mut joined = String::with_capacity(text.len());
    let mut place = 0;
    while let Some(c) = at(place) {
        let sign = at(place + 1).filter(|sign| " .-_*".contains(*sign));
        let begins = alone(place) && (place == 0 || !at(place - 1).is_some_and(char::is_alphanumeric));
        if let (true, Some(sign)) = (begins, sign) {
            let mut letters = vec![c];
            let mut next = place + 2;
            while alone(next)
                && at(next - 1) == Some(sign)
                && !at(next + 1).is_some_and(char::is_alphanumeric)
            {
                letters.extend(at(next));
                next += 2;
            }
            if letters.len() >= LETTERS_MIN {
                joined.extend(letters);
                place = next - 1;
                continue;
            }
        }
        joined.push(c);
        place += 1;
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_words_is_taken_away() {
        for (hidden, plain) in [
            ("ｋｉｌｌ", "kill"),
            ("𝖐𝖎𝖑𝖑", "kill"),
            ("k\u{200b}i\u{2060}l\u{ad}l", "kill"),
            ("\u{202e}kill\u{202c}", "kill"),
            ("ki\u{e0041}ll", "kill"),
            ("k\u{336}i\u{336}l\u{336}l\u{336}", "kill"),
            ("kіll уou", "kill you"),
            ("ᴋɪʟʟ", "ᴋɪʟʟ"),
            ("xᴋɪʟʟ", "xkill"),
            ("k1ll y0u", "kill you"),
            ("h4te $hit @ss!", "hate shit ass!"),
            ("k i l l", "kill"),
            ("go k.i.l.l now", "go kill now"),
        ] {
            assert_eq!(fold(hidden), plain, "{hidden:?}");
        }
    }

    #[test]
    fn ordinary_text_stays() {
        for text in [
            "Meet me at 10:30 on 3rd Street, flat 4b, for $20.",
            "The mp3 costs 5€ (2024), mail a.b1@example.org or see https://example.org/a1b2?x=3",
            "Привет, как дела? Это обычный текст.",
            "Ελληνικά και 日本語 and العربية",
            "नमस्ते दुनिया",
            "naïve café, Ångström, Việt Nam",
            "e.g. A. B. Smith, U.S.A.",
            "if (a[i] == 0 && b != 1) { return x + 1; }",
            "B2B, H2O, CO2, R2D2, iPhone15, x86_64, utf8, 100m, 5pm, COVID-19",
        ] {
            assert_eq!(fold(text), text);
        }
    }

    #[test]
    fn whatever_comes_it_ends_and_folds_no_further() {
        for text in ["", "\u{0}", "e\u{301}", "🇩🇪👩‍👩‍👧", "a b c d e f", "@", "$$$", "k\u{20dd}"]
        {
            let once = fold(text);
            assert_eq!(fold(&once), once, "{text:?}");
        }
    }
}
