//! What is judged as text: messages of ordinary words, new each time.

use std::ops::RangeInclusive;

use serde_json::json;

use crate::upload::Bodies;

/// Ordinary and harmless: 64 of them, so that a few spell a number.
const WORDS: &str = "river market window garden paper engine summer quiet letter bridge mountain teacher winter \
    bottle morning station village island planet copper simple narrow gentle early yellow doctor kitchen basket \
    forest travel answer measure picture history machine weather finger travelled remembered considered between \
    through under after people water friend street music little evening number question careful table again \
    because during another second always before house often";

/// How often a word ends a sentence.
const SENTENCE_ENDS: f64 = 0.1;

/// The last words of a message say which it is: what they spell is new each time.
const SERIAL_WORDS: usize = 5;

/// Messages of one source before their serial numbers would be those of the next.
const MESSAGES_MAX: usize = 1 << 18;

/// How long messages are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lengths {
    Short,
    Long,
    /// As people write: [`LONG_SHARE`] of them long, the others short.
    Mixed,
}

pub(crate) const LONG_SHARE: f64 = 0.1;

const SHORT: RangeInclusive<usize> = 5..=60;
const LONG: RangeInclusive<usize> = 61..=200;

/// An endless row of messages, each the body of one moderation.
#[derive(Debug)]
pub(crate) struct Source {
    words: Vec<&'static str>,
    lengths: Lengths,
    serial: usize,
    random: fastrand::Rng,
}

impl Source {
    /// The same number gives the same row; two numbers have no message in common.
    pub(crate) fn new(lengths: Lengths, number: u32) -> Self {
        Self {
            words: WORDS.split_whitespace().collect(),
            lengths,
            serial: number as usize * MESSAGES_MAX,
            random: fastrand::Rng::with_seed(number.into()),
        }
    }

    fn message(&mut self) -> String {
        let length = match self.lengths {
            Lengths::Short => SHORT,
            Lengths::Long => LONG,
            Lengths::Mixed if self.random.f64() < LONG_SHARE => LONG,
            Lengths::Mixed => SHORT,
        };
        let mut message = String::new();
        for _ in SERIAL_WORDS..self.random.usize(length) {
            message.push_str(self.words[self.random.usize(..self.words.len())]);
            message.push_str(if self.random.f64() < SENTENCE_ENDS { ". " } else { " " });
        }
        // At the end, so that messages have no beginning in common.
        let mut rest = self.serial;
        self.serial += 1;
        let serial = std::array::from_fn::<_, SERIAL_WORDS, _>(|_| {
            let word = self.words[rest % self.words.len()];
            rest /= self.words.len();
            word
        });
        message + &serial.join(" ")
    }
}

impl Bodies for Source {
    fn next(&mut self) -> Vec<u8> {
        json!({"input": self.message()}).to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn messages_never_repeat_and_a_number_gives_the_same_row() {
        let mut seen = HashSet::new();
        for number in [0, 1, 4_095] {
            let (mut one, mut again) =
                (Source::new(Lengths::Short, number), Source::new(Lengths::Short, number));
            for _ in 0..3_000 {
                let message = one.message();
                assert_eq!(message, again.message());
                assert!(seen.insert(message));
            }
        }
        // Also the shortest of all, of which nothing but the serial number is left.
        let serials = |number, from| {
            let mut source = Source::new(Lengths::Short, number);
            source.serial += from;
            let messages = std::iter::repeat_with(move || source.message()).take(2);
            messages.map(|message| {
                let words: Vec<_> = message.split(' ').map(str::to_owned).collect();
                words[words.len() - SERIAL_WORDS..].join(" ")
            })
        };
        let serials: Vec<_> =
            serials(1, 0).chain(serials(1, MESSAGES_MAX - 2)).chain(serials(2, 0)).collect();
        assert_eq!(serials.iter().collect::<HashSet<_>>().len(), 6, "{serials:?}");
    }

    #[test]
    fn lengths_are_as_said() {
        let lengths = |lengths| {
            let mut source = Source::new(lengths, 7);
            std::iter::repeat_with(move || source.message().split_whitespace().count())
                .take(5_000)
                .collect::<Vec<_>>()
        };
        for (kind, range) in [(Lengths::Short, SHORT), (Lengths::Long, LONG)] {
            let found = lengths(kind);
            assert!(found.iter().min() == Some(range.start()) && found.iter().max() == Some(range.end()));
        }
        let long = lengths(Lengths::Mixed).iter().filter(|words| LONG.contains(words)).count();
        // Of 5 000 one in ten: the standard deviation is 21.
        assert!((400..600).contains(&long), "{long}");
    }

    #[test]
    fn a_body_is_a_moderation_s_input() {
        let body: Value = serde_json::from_slice(&Source::new(Lengths::Mixed, 1).next()).expect("JSON");
        assert!(body["input"].as_str().is_some_and(|text| text.is_ascii() && text.len() > 20), "{body}");
        assert_eq!(WORDS.split_whitespace().collect::<HashSet<_>>().len(), 64);
    }
}
