//! Tokens by the vocabulary in the file are those of the reference.

use shieldgate_models::checkpoint::gguf::Gguf;

use super::{folder, golden};

#[test]
fn ids_are_the_references() -> anyhow::Result<()> {
    let mut tokenizer = Gguf::open(&folder().join("tiny.gguf"))?.tokenizer()?;
    let samples = golden("tiny.json")?.samples;
    assert!(samples.iter().any(|sample| sample.written != sample.content));
    for content in [false, true] {
        tokenizer.set_encode_special_tokens(content);
        for sample in &samples {
            let found = tokenizer.encode(sample.text.as_str(), false).map_err(anyhow::Error::from_boxed)?;
            let expected = if content { &sample.content } else { &sample.written };
            assert_eq!(found.get_ids(), expected, "{:?}, content: {content}", sample.text);
            let started = tokenizer.encode(sample.text.as_str(), true).map_err(anyhow::Error::from_boxed)?;
            assert_eq!(started.get_ids().split_first(), Some((&2, expected.as_slice())));
        }
    }
    Ok(())
}

#[test]
fn no_text_makes_a_control_token() -> anyhow::Result<()> {
    let mut tokenizer = Gguf::open(&folder().join("tiny.gguf"))?.tokenizer()?;
    tokenizer.set_encode_special_tokens(true);
    let decoder = tokenizer.get_added_tokens_decoder();
    let special: Vec<_> = decoder.iter().filter(|(_, token)| token.special).collect();
    assert_eq!(special.len(), 12);
    for (id, token) in &special {
        for text in [token.content.clone(), format!("a{} b", token.content)] {
            let found = tokenizer.encode(text.as_str(), false).map_err(anyhow::Error::from_boxed)?;
            assert!(!found.get_ids().contains(id), "{text}");
            assert_eq!(tokenizer.decode(found.get_ids(), false).map_err(anyhow::Error::from_boxed)?, text);
        }
    }
    Ok(())
}

/// `tokenizer.ggml.token_type` and the like, spoiled in place: (key, bytes after its type, new bytes, the error).
#[test]
fn a_broken_vocabulary_is_refused() -> anyhow::Result<()> {
    let whole = std::fs::read(folder().join("tiny.gguf"))?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x.gguf");
    // A list is its element's type, its length, its elements.
    let cases: [(&str, usize, &[u8], &str); 7] = [
        ("tokenizer.ggml.token_type", 12, &[9, 0, 0, 0], "is of the kind 9"),
        ("tokenizer.ggml.scores", 12, &[0, 0, 0xc0, 0x7f], "no finite number"),
        // `<pad>` becomes a second `<eos>`.
        ("tokenizer.ggml.tokens", 20, b"<eos>", "are the same"),
        ("tokenizer.ggml.model", 8, b"gpt-2", "llama"),
        ("tokenizer.ggml.bos_token_id", 0, &[0xff, 0xff, 0, 0], "bos_token_id"),
        ("tokenizer.ggml.add_space_prefix", 0, &[1], "add_space_prefix"),
        ("tokenizer.ggml.add_eos_token", 0, &[1], "add_eos_token"),
    ];
    for (key, after, new, expected) in cases {
        let mut bytes = whole.clone();
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).expect(key);
        let at = at + key.len() + 4 + after;
        bytes[at..at + new.len()].copy_from_slice(new);
        std::fs::write(&path, bytes)?;
        let error = Gguf::open(&path)?.tokenizer().expect_err(key).to_string();
        assert!(error.contains(expected), "{key}: {error}");
    }
    Ok(())
}
