//! Texts to token ids, so that no text can name a control token.
//!
//! Reference: transformers 5.23, a Gemma tokenizer called with `split_special_tokens=True` (what users wrote)
//! and without (what the chat template wrote).

use std::path::Path;

use tokenizers::{AddedToken, Tokenizer};

use super::{PromptError, TOKENIZER, read_tokenizer};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::gguf::anybody_may_write;

pub struct TextTokenizer {
    /// Reads control tokens in texts as the characters they are.
    tokenizer: Tokenizer,
    /// The texts of the control tokens, longest first, and their ids.
    control: Vec<(String, u32)>,
    /// What stands before every text: `<bos>`.
    start: Vec<u32>,
}

impl TextTokenizer {
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let broken = |reason: String| CheckpointError::Tokenizer { path: folder.join(TOKENIZER), reason };
        Self::of(read_tokenizer(folder)?).map_err(broken)
    }

    /// Any Gemma tokenizer, however it was read; the error says why it can't be used.
    pub fn of(mut tokenizer: Tokenizer) -> Result<Self, String> {
        // `tokenizer.json` calls few special of those that only the model's makers may write.
        let added = tokenizer.get_added_tokens_decoder().into_values();
        let makers = added.filter(|token| !token.special && !anybody_may_write(&token.content));
        let makers: Vec<_> = makers.map(|token| AddedToken { special: true, ..token }).collect();
        tokenizer.add_special_tokens(makers).map_err(|error| error.to_string())?;
        tokenizer.set_encode_special_tokens(true);
        let mut control: Vec<(String, u32)> = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .map(|(id, token)| (token.content, id))
            .collect();
        control.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        let ids = |text: &str, added: bool| {
            let encoding = tokenizer.encode_fast(text, added).map_err(|error| error.to_string())?;
            Ok::<_, String>(encoding.get_ids().to_vec())
        };
        let start = ids("", true)?;
        if ids("a", true)? != [start.as_slice(), &ids("a", false)?].concat() {
            return Err("it puts something behind a text, which no Gemma tokenizer does".to_owned());
        }
        // A token is made from its own characters only, so this holds for every text.
        for (text, id) in &control {
            if ids(text, false)?.contains(id) {
                return Err(format!("users could write its control token `{text}`"));
            }
        }
        Ok(Self { tokenizer, control, start })
    }

    pub fn start(&self) -> &[u32] {
        &self.start
    }

    /// What a user wrote: control tokens in it are mere characters.
    pub fn content(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        let encoding = self.tokenizer.encode_fast(text, false);
        Ok(encoding.map_err(|error| PromptError::Tokenizer(error.to_string()))?.get_ids().to_vec())
    }

    /// What the chat template wrote: control tokens are themselves.
    pub fn written(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let next = self.next_control(rest);
            let (before, after, id) = match next {
                Some((at, length, id)) => (rest.get(..at), rest.get(at + length..), Some(id)),
                None => (Some(rest), Some(""), None),
            };
            ids.extend(self.content(before.unwrap_or_default())?);
            ids.extend(id);
            rest = after.unwrap_or_default();
        }
        Ok(ids)
    }

    /// The leftmost control token, the longest where several begin: its place, its length, its id.
    fn next_control(&self, text: &str) -> Option<(usize, usize, u32)> {
        let found = self.control.iter().filter_map(|(token, id)| Some((text.find(token)?, token.len(), *id)));
        found.min_by_key(|(at, length, _)| (*at, usize::MAX - length))
    }

    /// The one token that `word` is.
    pub fn single(&self, word: &str) -> Option<u32> {
        match self.content(word).ok()?.as_slice() {
            &[id] => Some(id),
            _ => None,
        }
    }

    /// The largest id that a text can have; control tokens for pictures may lie beyond what a model that only
    /// reads texts knows.
    pub fn largest(&self) -> u32 {
        let of_texts = |id: &u32| self.control.iter().all(|(_, control)| control != id);
        self.tokenizer.get_vocab(true).into_values().filter(of_texts).max().unwrap_or_default()
    }
}
