//! A tokenizer out of a GGUF's own SentencePiece vocabulary, equal to the model's `tokenizer.json`.
//!
//! Reference: `generate_merges` of transformers 5.23, which makes the merges of a BPE from the pieces' scores,
//! and llama.cpp for what the kinds of tokens mean. Tokens that only the model's makers may write are
//! *special* here: with `set_encode_special_tokens(true)` they are the characters they consist of. That is
//! more than `tokenizer.json` calls special (it leaves out `<mask>`, `[multimodal]` and the 6 242
//! `<unused…>`), and no merge leads to one.

use std::cmp::Reverse;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::replace::Replace;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

use super::{Gguf, Metadata};
use crate::checkpoint::CheckpointError;

/// Stands for a blank inside tokens.
const BLANK: &str = "▁";
/// Gemma 3's longest has 93 bytes. This and the next two bound what a hostile vocabulary can cost.
const TOKEN_BYTES_MAX: usize = 128;
/// Gemma 3 has 514 906.
const MERGES_MAX: usize = 1 << 21;
/// Tokens that are looked for in every text; Gemma 3 has 6 414.
const WHOLE_MAX: usize = 1 << 14;

/// Those of Gemma 3's tokens, which it reads as one each.
const TAGS: [&str; 35] = [
    "a",
    "b",
    "bbox",
    "blockquote",
    "body",
    "caption",
    "code",
    "div",
    "em",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "html",
    "i",
    "iframe",
    "img",
    "li",
    "s",
    "span",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "u",
    "ul",
];

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const KINDS: &str = "tokenizer.ggml.token_type";
const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Made by merging.
    Normal,
    /// Found in the text as a whole before anything is merged: runs of blanks, HTML tags.
    Whole,
    /// Written by the model's makers only.
    Special,
    /// One byte of a character that has no token.
    Byte,
    /// In the vocabulary, but never made.
    Unused,
}

struct Token {
    text: String,
    score: f64,
    kind: Kind,
}

/// The chat template that a file carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    pub source: String,
    /// What the template may name: `bos_token` and `eos_token`.
    pub special_tokens: Vec<(String, String)>,
}

impl Gguf {
    /// None in the file of a base model.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, CheckpointError> {
        let metadata = self.metadata();
        let Some(source) = metadata.text(CHAT_TEMPLATE)? else { return Ok(None) };
        let tokens = metadata.texts(TOKENS)?.unwrap_or_default();
        let mut special_tokens = Vec::new();
        for (name, key) in [("bos_token", BOS), ("eos_token", EOS)] {
            if let Some(token) = metadata.count(key)?.and_then(|id| tokens.get(id)) {
                special_tokens.push((name.to_owned(), token.to_string()));
            }
        }
        Ok(Some(ChatTemplate { source: source.to_owned(), special_tokens }))
    }

    /// Adds `<bos>` where the file says so and the caller asks for special tokens.
    pub fn tokenizer(&self) -> Result<Tokenizer, CheckpointError> {
        let metadata = self.metadata();
        if metadata.text(MODEL)? != Some("llama") {
            return Err(metadata.refuse(MODEL, "llama (a SentencePiece vocabulary)"));
        }
        // Absent means true, and Gemma never has it so.
        if metadata.bool(SPACE_PREFIX)? != Some(false) {
            return Err(metadata.refuse(SPACE_PREFIX, "false"));
        }
        if metadata.bool(ADD_EOS)? == Some(true) {
            return Err(metadata.refuse(ADD_EOS, "false"));
        }
        let tokens = tokens(metadata)?;
        let named = |key: &str| match metadata.count(key)? {
            Some(id) => match tokens.get(id) {
                Some(token) => Ok(Some(token.text.clone())),
                None => Err(metadata.refuse(key, format!("an id below {}", tokens.len()))),
            },
            None => Ok(None),
        };
        let bos = if metadata.bool(ADD_BOS)?.unwrap_or(true) { named(BOS)? } else { None };
        let unknown = named(UNKNOWN)?;
        let broken = |reason: String| CheckpointError::Tokenizer { path: self.path().to_path_buf(), reason };
        let mut vocabulary = Vocab::default();
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = vocabulary.insert(token.text.clone(), id as u32) {
                return Err(broken(format!("its tokens {first} and {id} are the same")));
            }
        }
        check_whole(&tokens).map_err(broken)?;
        let merges = merges(&tokens, &vocabulary).map_err(broken)?;
        build(&tokens, vocabulary, merges, bos, unknown).map_err(|error| broken(error.to_string()))
    }
}

fn tokens(metadata: &Metadata) -> Result<Vec<Token>, CheckpointError> {
    let texts = metadata.texts(TOKENS)?.filter(|texts| !texts.is_empty());
    let texts = texts.ok_or_else(|| metadata.refuse(TOKENS, "a list of texts"))?;
    let each = format!("one for each of {} tokens", texts.len());
    let scores = metadata.floats(SCORES)?.filter(|scores| scores.len() == texts.len());
    let scores = scores.ok_or_else(|| metadata.refuse(SCORES, &each))?;
    let kinds = metadata.integers(KINDS)?.filter(|kinds| kinds.len() == texts.len());
    let kinds = kinds.ok_or_else(|| metadata.refuse(KINDS, &each))?;
    let all = texts.iter().zip(scores).zip(kinds).enumerate();
    all.map(|(id, ((text, score), kind))| {
        let refuse = |reason: String| CheckpointError::Tokenizer {
            path: metadata.path().to_path_buf(),
            reason: format!("its token {id} {reason}"),
        };
        if text.is_empty() || text.len() > TOKEN_BYTES_MAX {
            return Err(refuse(format!("has {} bytes; 1 to {TOKEN_BYTES_MAX} are allowed", text.len())));
        }
        if !score.is_finite() {
            return Err(refuse("has a score that is no finite number".to_owned()));
        }
        Ok(match kind {
            1 => Token { text: text.to_string(), score: *score, kind: Kind::Normal },
            // llama.cpp writes their blanks out, and -1000 for the score, which SentencePiece has as 0.
            4 => {
                let kind = if anybody_may_write(text) { Kind::Whole } else { Kind::Special };
                Token { text: text.replace(' ', BLANK), score: 0.0, kind }
            }
            2 | 3 => Token { text: text.to_string(), score: *score, kind: Kind::Special },
            5 => Token { text: text.to_string(), score: *score, kind: Kind::Unused },
            6 => Token { text: text.to_string(), score: *score, kind: Kind::Byte },
            other => return Err(refuse(format!("is of the kind {other}, which is none"))),
        })
    })
    .collect()
}

/// Whether a token that is matched as a whole may stand in anybody's text: a run of blanks or one of Gemma's HTML
/// tags. Any other means something to the model, such as `<start_of_image>`. Serves `tokenizer.json` as well,
/// which calls only nine of its 6 415 such tokens special; `<mask>` and `<unused5>` look like tags there.
pub fn anybody_may_write(text: &str) -> bool {
    let tag = text.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
    let tag = tag.map(|name| name.strip_prefix('/').unwrap_or(name));
    tag.is_some_and(|name| TAGS.contains(&name))
        || text.chars().all(|character| matches!(character, ' ' | '▁' | '\n' | '\t' | '\r'))
}

fn check_whole(tokens: &[Token]) -> Result<(), String> {
    let whole = tokens.iter().filter(|token| matches!(token.kind, Kind::Whole | Kind::Special)).count();
    if whole > WHOLE_MAX {
        return Err(format!("it has {whole} tokens to look for; {WHOLE_MAX} are allowed"));
    }
    Ok(())
}

/// Every way in which two tokens make a third, in the order in which they are tried: by falling score.
fn merges(tokens: &[Token], vocabulary: &Vocab) -> Result<Merges, String> {
    let merged = |text: &str| {
        let id = *vocabulary.get(text)?;
        let token = tokens.get(id as usize)?;
        matches!(token.kind, Kind::Normal | Kind::Whole).then_some(id)
    };
    let mut found = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        if !matches!(token.kind, Kind::Normal | Kind::Whole) {
            continue;
        }
        let length = token.text.chars().count();
        for (left, (at, _)) in token.text.char_indices().enumerate().skip(1) {
            let (first, second) = token.text.split_at(at);
            let (Some(first), Some(second)) = (merged(first), merged(second)) else { continue };
            if found.len() == MERGES_MAX {
                return Err(format!("its tokens make more than {MERGES_MAX} merges"));
            }
            found.push((token.score, left, length - left, id, first, second));
        }
    }
    found.sort_by(|a, b| {
        let ids = |found: &(f64, usize, usize, usize, u32, u32)| {
            (Reverse(found.1), Reverse(found.2), found.3, found.4, found.5)
        };
        b.0.total_cmp(&a.0).then_with(|| ids(a).cmp(&ids(b)))
    });
    let text = |id: u32| tokens.get(id as usize).map(|token| token.text.clone()).unwrap_or_default();
    Ok(found.into_iter().map(|(.., first, second)| (text(first), text(second))).collect())
}

fn build(
    tokens: &[Token],
    vocabulary: Vocab,
    merges: Merges,
    bos: Option<String>,
    unknown: Option<String>,
) -> tokenizers::Result<Tokenizer> {
    let bos = bos.map(|bos| (vocabulary.get(&bos).copied().unwrap_or_default(), bos));
    let mut bpe = BPE::builder().vocab_and_merges(vocabulary, merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = unknown {
        bpe = bpe.unk_token(unknown);
    }
    let mut tokenizer = Tokenizer::new(bpe.build()?);
    tokenizer.with_normalizer(Some(Replace::new(" ", BLANK)?))?;
    tokenizer.with_decoder(Some(Sequence::new(vec![
        Replace::new(BLANK, " ")?.into(),
        ByteFallback::new().into(),
        Fuse::new().into(),
    ])));
    if let Some((id, bos)) = bos {
        let template = TemplateProcessing::builder()
            .try_single(vec![bos.as_str(), "$A"])?
            .special_tokens(vec![(bos, id)])
            .build()?;
        tokenizer.with_post_processor(Some(template));
    }
    let added = |kind: Kind| {
        let special = kind == Kind::Special;
        let found = tokens.iter().filter(move |token| token.kind == kind);
        found.map(move |token| AddedToken::from(token.text.clone(), special).normalized(false))
    };
    tokenizer.add_tokens(added(Kind::Whole))?;
    tokenizer.add_special_tokens(added(Kind::Special))?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_tags_are_anybodys() {
        for text in ["\n", "\n\n\n", "  ", "▁▁", "\t", "<h1>", "</table>", "<bbox>"] {
            assert!(anybody_may_write(text), "{text:?}");
        }
        for text in [
            "<start_of_image>",
            "[multimodal]",
            "<>",
            "</>",
            "<1>",
            "<mask>",
            "<unused5>",
            "<eos>",
            "<a b>",
            "a",
        ] {
            assert!(!anybody_may_write(text), "{text:?}");
        }
    }

    #[test]
    fn a_vocabulary_that_would_cost_too_much_is_refused() {
        let token = |text, kind| Token { text, score: 0.0, kind };
        // Any two runs of a letter make a longer one: 8 128 merges a letter.
        let runs = ('\u{4e00}'..).take(260).flat_map(|letter| (1..=128).map(move |times| (letter, times)));
        let tokens: Vec<Token> =
            runs.map(|(letter, times)| token(letter.to_string().repeat(times), Kind::Normal)).collect();
        let ids = tokens.iter().enumerate().map(|(id, token)| (token.text.clone(), id as u32));
        let vocabulary: Vocab = ids.collect();
        assert!(merges(&tokens, &vocabulary).unwrap_err().contains("2097152 merges"));
        assert_eq!(merges(&tokens[..256], &vocabulary).unwrap().len(), 2 * 8128);

        let special = |count| (0..count).map(|at| token(at.to_string(), Kind::Special)).collect::<Vec<_>>();
        assert!(check_whole(&special(WHOLE_MAX)).is_ok());
        assert!(check_whole(&special(WHOLE_MAX + 1)).unwrap_err().contains("16385 tokens"));
    }
}
