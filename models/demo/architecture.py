"""The demo's checkpoint without its training: configuration, tokenizer and processor of ShieldGemma 2, small.

`models/reference` makes its random checkpoints the same way; this one is for showing.
"""

import json
import re
import shutil
from pathlib import Path

import jinja2
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Gemma3ImageProcessor,
    GemmaTokenizer,
    ShieldGemma2Config,
    ShieldGemma2ForImageClassification,
    ShieldGemma2Processor,
)
from transformers.models.shieldgemma2.processing_shieldgemma2 import DEFAULT_SHIELDGEMMA2_POLICIES

import categories
import compositions

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / "models/reference/chat_template.jinja").read_text()
# What `policies/*.yaml` call their judge: the real one, once added, takes its place.
NAME = "shieldgemma2"

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
IMAGE_TOKENS = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
# Tokens a picture becomes.
IMAGE_SEQUENCE = 16
VOCABULARY = 1000
# A word with the blank before it, or a run of blanks.
WORDS = "▁▁+|▁?[^▁\n']+|\n|'|▁"

VISION = dict(
    num_channels=3, image_size=compositions.SIDE, patch_size=14, hidden_size=192, intermediate_size=576,
    num_hidden_layers=4, num_attention_heads=6, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6,
    vision_use_head=False,
)
TEXT = dict(
    hidden_size=128, intermediate_size=256, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
    head_dim=32, query_pre_attn_scalar=32, sliding_window=512, max_position_embeddings=2048, rms_norm_eps=1e-6,
    rope_theta=1_000_000, rope_local_base_freq=10_000, pad_token_id=0, eos_token_id=1, bos_token_id=2,
)


def policy_texts():
    """The texts of `policies/*.yaml`, which must be those that the processor brings."""
    texts = {}
    for policy in categories.POLICIES:
        source = (ROOT / f"policies/{policy}.yaml").read_text()
        folded = re.search(r"^text: >-\n((?:  .*\n)+)", source, re.MULTILINE).group(1)
        texts[policy] = " ".join(line.strip() for line in folded.splitlines())
    assert texts == DEFAULT_SHIELDGEMMA2_POLICIES, "policies/*.yaml no longer say what ShieldGemma 2 was asked"
    return texts


def make_tokenizer():
    """A BPE in Gemma's own shape, from the prompts themselves: whole words mostly, bytes for everything else."""
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE)
    texts = ["Yes\nNo\n" * 8]
    for text in policy_texts().values():
        messages = [{"content": [{"type": "image"}, {"type": "text", "text": text}]}]
        # What lies between the special tokens, which never merge with anything.
        texts += re.split("|".join(map(re.escape, [*SPECIAL, *IMAGE_TOKENS.values()])), template.render(messages=messages))
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    trained = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    # Only for training: merges that stay within a word, or within a run of blanks.
    trained.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[*SPECIAL, *IMAGE_TOKENS.values(), *bytes_], show_progress=False
    )
    trained.train_from_iterator(texts * 4, trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary, merges = model["vocab"], [tuple(pair) for pair in model["merges"]]
    add_phrases(texts, vocabulary, merges)
    tokenizer = GemmaTokenizer(
        vocab=vocabulary,
        merges=merges,
        extra_special_tokens=IMAGE_TOKENS,
        add_bos_token=True,
    )
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]}, replace_extra_special_tokens=False
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def add_phrases(texts, vocabulary, merges):
    """Known phrases of up to eight words become one token, which keeps the prompts short: most of the training
    of the decoder is their length. Pairs of words merge first, then pairs of pairs."""
    lines = [line.replace(" ", "▁") for text in dict.fromkeys(texts) for line in text.split("\n")]
    rows = [[word for word in re.findall(WORDS, line) if word in vocabulary] for line in lines]
    for _ in range(3):
        for row in rows:
            for left, right in zip(row[::2], row[1::2]):
                if left + right not in vocabulary and "▁▁" not in left + right and "'" not in left + right:
                    vocabulary[left + right] = len(vocabulary)
                    merges.append((left, right))
        rows = [merged(row, vocabulary) for row in rows]


def merged(row, vocabulary):
    pairs = [row[at : at + 2] for at in range(0, len(row), 2)]
    return [part for pair in pairs for part in (["".join(pair)] if "".join(pair) in vocabulary else pair)]


def make_processor():
    side = VISION["image_size"]
    image_processor = Gemma3ImageProcessor(
        image_seq_length=IMAGE_SEQUENCE, image_mean=[0.5] * 3, image_std=[0.5] * 3,
        size={"height": side, "width": side}, resample=2,
    )
    return ShieldGemma2Processor(
        image_processor=image_processor, tokenizer=make_tokenizer(), chat_template=TEMPLATE,
        image_seq_length=IMAGE_SEQUENCE, policy_definitions=policy_texts(),
    )


def make_model(tokenizer):
    """Fresh weights, as transformers initialises them but for the projection, which it would leave at zero."""

    def single(word):
        (token,) = tokenizer(word, add_special_tokens=False)["input_ids"]
        return token

    config = ShieldGemma2Config(
        yes_token_index=single("Yes"),
        no_token_index=single("No"),
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
        mm_tokens_per_image=IMAGE_SEQUENCE,
        text_config=dict(TEXT, vocab_size=len(tokenizer)),
        vision_config=dict(VISION),
    )
    model = ShieldGemma2ForImageClassification(config)
    projection = model.model.model.multi_modal_projector.mm_input_projection_weight
    torch.nn.init.normal_(projection, std=VISION["hidden_size"] ** -0.5)
    return model


def save(model, processor, folder):
    """Writes the checkpoint folder whole, bf16; it is there complete or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = {name: value.detach().to(torch.bfloat16).clone() for name, value in model.state_dict().items()}
    copy = ShieldGemma2ForImageClassification(model.config).to(torch.bfloat16)
    copy.load_state_dict(state)
    copy.save_pretrained(partial)
    processor.save_pretrained(partial)
    # Older readers look for the image part in a file of its own.
    described = json.loads((partial / "processor_config.json").read_text())
    (partial / "preprocessor_config.json").write_text(json.dumps(described["image_processor"]))
    config = json.loads((partial / "config.json").read_text())
    # shieldgate's own key: the name it goes by, and that it is for showing.
    config["shieldgate"] = {"name": NAME, "demo": True}
    (partial / "config.json").write_text(json.dumps(config))
    for path in partial.glob("*.json"):
        text = json.dumps(json.loads(path.read_text()), ensure_ascii=False, indent=1, sort_keys=True)
        path.write_text(text + "\n")
    for path in partial.iterdir():
        path.chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
