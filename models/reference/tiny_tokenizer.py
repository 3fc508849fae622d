"""A tiny BPE in Gemma's own shape: byte fallback, `▁` for a blank, image tokens, `<bos>` before every text."""

import json

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import GemmaTokenizer

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
IMAGE_TOKENS = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}


def make_tokenizer(texts, template, entries):
    """`entries` at most, special tokens and bytes among them, from `texts`."""
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    trained = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    # Only for training: merges that stay within a word, or within a run of blanks.
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Split("'", "isolated"),
            pre_tokenizers.Split("▁", "merged_with_next"),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=entries, special_tokens=[*SPECIAL, *IMAGE_TOKENS.values(), *bytes_])
    trained.train_from_iterator(texts * 4, trainer)
    model = json.loads(trained.to_str())["model"]
    tokenizer = GemmaTokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        extra_special_tokens=IMAGE_TOKENS,
        add_bos_token=True,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]}, replace_extra_special_tokens=False)
    tokenizer.chat_template = template
    return tokenizer
