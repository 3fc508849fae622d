"""Makes three tiny random ShieldGemma 2 checkpoints and the values that transformers computes with them.

Everything comes from seeds, so a second run writes the same files; `make_shieldgemma2.py c` writes one of
them only. See README.md.
"""

import json
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoProcessor,
    Gemma3ImageProcessor,
    ShieldGemma2Config,
    ShieldGemma2ForImageClassification,
    ShieldGemma2Processor,
)
from transformers.models.shieldgemma2.processing_shieldgemma2 import DEFAULT_SHIELDGEMMA2_POLICIES

from tiny_tokenizer import make_tokenizer

HERE = Path(__file__).parent
OUT = HERE.parent / "tests" / "shieldgemma2"
TEMPLATE = (HERE / "chat_template.jinja").read_text()

# Lengths differ on purpose: a suffix of three words beside one of a paragraph.
CUSTOM_POLICIES = {
    "short": "No cats.",
    "long": (
        "No advertising: the picture shall not carry a price, a discount, a shop's name or address, a QR code, a"
        " call to buy, to subscribe or to visit, nor a product shown so that nothing else is in it. A label on a"
        " bottle that stands on a table among other things is no advertising; a label that fills the picture is.\n"
        "Exceptions: museum posters older than fifty years, and street views in which signs are unavoidable."
    ),
    "script": "Keine Wörter wie „Größe“, 猫, кот or 🐈; no <b>markup</b> & no trailing blanks.  ",
}
POLICIES = {**DEFAULT_SHIELDGEMMA2_POLICIES, **CUSTOM_POLICIES}
ORDERS = [
    list(POLICIES),
    list(reversed(POLICIES)),
    ["short", "violence"],
    ["long"],
]

def single_token(tokenizer, word):
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    assert len(ids) == 1, f"{word} is {ids}"
    return ids[0]


def config_of(name, tokenizer):
    text = dict(
        vocab_size=len(tokenizer) + 8, max_position_embeddings=1024, query_pre_attn_scalar=8, rms_norm_eps=1e-6,
        pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )
    vision = dict(num_channels=3, patch_size=14, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6, vision_use_head=False)
    if name in ("a", "c"):
        # Two whole local/global cycles and one layer more; every prompt is longer than the window.
        text |= dict(
            hidden_size=32, intermediate_size=64, num_hidden_layers=13, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8, sliding_window=24, rope_scaling={"rope_type": "linear", "factor": 8.0}, rope_theta=1_000_000,
            rope_local_base_freq=10_000,
        )
        vision |= dict(hidden_size=32, intermediate_size=68, num_hidden_layers=3, num_attention_heads=4, image_size=112)
        tokens = 16
    else:
        # heads x head_dim is not the hidden size, another pattern, another window, other rope bases.
        text |= dict(
            hidden_size=48, intermediate_size=72, num_hidden_layers=5, num_attention_heads=6, num_key_value_heads=3,
            head_dim=16, query_pre_attn_scalar=20, sliding_window=64, sliding_window_pattern=2,
            rope_scaling={"rope_type": "linear", "factor": 4.0}, rope_theta=500_000, rope_local_base_freq=5_000,
            rms_norm_eps=1e-5,
        )
        vision |= dict(hidden_size=40, intermediate_size=60, num_hidden_layers=2, num_attention_heads=5, image_size=84)
        tokens = 9
    return ShieldGemma2Config(
        yes_token_index=single_token(tokenizer, "Yes"),
        no_token_index=single_token(tokenizer, "No"),
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
        mm_tokens_per_image=tokens,
        text_config=text,
        vision_config=vision,
    )


def randomise(model, seed):
    """Weights that keep activations near 1 and attention sharp enough for policies to differ."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        shape = parameter.shape
        noise = torch.randn(shape, generator=random, dtype=torch.float32)
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            value = 0.8 + 0.2 * noise
        elif "language_model" in name and "norm" in name:
            value = 0.2 * noise
        elif "mm_soft_emb_norm" in name:
            value = 0.5 + 0.2 * noise
        elif "layernorm" in name or "layer_norm" in name:
            value = (1.0 if name.endswith("weight") else 0.0) + 0.2 * noise
        elif "embed_tokens" in name or "lm_head" in name:
            value = 0.3 * noise
        elif "position_embedding" in name:
            value = 0.5 * noise
        elif "mm_input_projection" in name:
            value = noise * 2.0 / math.sqrt(shape[0])
        elif len(shape) == 1:
            value = 0.1 * noise
        else:
            value = noise * 1.5 / math.sqrt(math.prod(shape[1:]))
        parameter.data.copy_(value)
    model.tie_weights()


def save_checkpoint(name, folder, model, processor, dtype):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # `c` in shards as transformers cuts them.
    model.to(dtype).save_pretrained(folder, max_shard_size="120KB" if name == "c" else "5GB")
    processor.save_pretrained(folder)
    if name == "b":
        older_layout(folder)
    if name == "c":
        mix_storage(folder)
    for path in folder.iterdir():
        if path.suffix == ".json":
            path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False, indent=1, sort_keys=True) + "\n")


def mix_storage(folder):
    """Norms as single precision, the picture's side in half precision: what fine-tuning tools leave behind."""
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2, shards
    total = 0
    for shard in shards:
        state = load_file(shard)
        for key, value in state.items():
            if "norm" in key:
                state[key] = value.to(torch.float32)
            elif "vision_tower" in key:
                state[key] = value.to(torch.float16)
            total += state[key].numel() * state[key].element_size()
        save_file(state, shard, metadata={"format": "pt"})
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["metadata"]["total_size"] = total
    path.write_text(json.dumps(index))


def older_layout(folder):
    """The files as transformers 4.50 wrote them, which is how the published checkpoint lies on the Hub."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    renamed = {older_name(key): value for key, value in state.items()}
    # Two shards, split in the middle of a layer.
    keys = sorted(renamed)
    halves = [keys[: len(keys) // 2], keys[len(keys) // 2 :]]
    weight_map = {}
    for at, half in enumerate(halves):
        shard = f"model-{at + 1:05}-of-00002.safetensors"
        save_file({key: renamed[key].contiguous() for key in half}, folder / shard, metadata={"format": "pt"})
        weight_map |= {key: shard for key in half}
    total = sum(value.numel() * value.element_size() for value in renamed.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"]
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope["full_attention"].pop("rope_theta")
    text["rope_scaling"] = rope["full_attention"]
    text["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    text.pop("layer_types")
    text["sliding_window_pattern"] = 2
    (folder / "config.json").write_text(json.dumps(config))

    processor = json.loads((folder / "processor_config.json").read_text())
    image = processor.pop("image_processor")
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    (folder / "processor_config.json").write_text(json.dumps(processor))
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))


def older_name(key):
    """As the published checkpoint has it, from whatever prefix this version of transformers writes."""
    for part, older in [("language_model.", "language_model.model."), ("vision_tower.", "vision_tower.vision_model."),
                        ("multi_modal_projector.", "multi_modal_projector.")]:
        at = key.find(part)
        if at >= 0:
            tail = key[at + len(part) :].removeprefix("model.").removeprefix("vision_model.")
            return f"model.{older}{tail}"
    raise ValueError(f"no older name for {key}")


def make_pictures(folder):
    """Small, deterministic, lossless: shrinking and enlarging, wide and high, flat and photo-like."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(20260)
    pictures = {}
    y, x = np.mgrid[0:96, 0:150].astype(np.float64)
    # Photo-like: smooth light, some edges, sensor noise.
    light = 120 + 70 * np.sin(x / 37) * np.cos(y / 23)
    disc = ((x - 95) ** 2 + (y - 40) ** 2 < 26**2) * 60
    photo = np.stack([light + disc, light * 0.8 + 20 - disc, 200 - light * 0.7], axis=-1)
    pictures["photo_150x96"] = np.clip(photo + random.normal(0, 4, photo.shape), 0, 255)
    pictures["noise_31x47"] = random.integers(0, 256, (47, 31, 3))
    y, x = np.mgrid[0:260, 0:140]
    pictures["stripes_140x260"] = np.stack([((x + y) // 9 % 2) * 255, (x // 5 % 2) * 255, (y // 7 % 3) * 127], axis=-1)
    pictures["one_pixel"] = np.array([[[200, 30, 90]]])
    y, x = np.mgrid[0:112, 0:112]
    pictures["exact_112x112"] = np.stack([x * 2, y * 2, (x ^ y) * 2], axis=-1)
    pictures["wide_300x9"] = random.integers(0, 2, (9, 300, 1)).repeat(3, axis=2) * 255
    for name, array in pictures.items():
        Image.fromarray(array.astype(np.uint8)).save(folder / f"{name}.png", optimize=True)
    return sorted(pictures)


@torch.no_grad()
def golden_of(name, folder, pictures):
    """Everything through the reference's front door: the processor and the model as loaded from the folder."""
    processor = AutoProcessor.from_pretrained(folder)
    model, loading = ShieldGemma2ForImageClassification.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    # A tensor that transformers did not find would be random, and so would the golden values.
    assert not loading["missing_keys"] and not loading["unexpected_keys"], loading
    model.eval()
    golden = {"yes": model.yes_token_index, "no": model.no_token_index, "policies": POLICIES, "prompts": {}, "token_ids": {}, "runs": []}
    arrays = {}
    messages = lambda text: [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    for policy, text in POLICIES.items():
        golden["prompts"][policy] = processor.apply_chat_template([messages(text)], tokenize=False)[0]
    for picture in pictures:
        image = Image.open(OUT / "pictures" / f"{picture}.png").convert("RGB")
        alone = {}
        for policy in POLICIES:
            inputs = processor(images=[image], custom_policies=CUSTOM_POLICIES, policies=[policy], return_tensors="pt")
            golden["token_ids"][policy] = inputs["input_ids"][0].tolist()
            outputs = model(**inputs)
            alone[policy] = {"logits": outputs.logits[0].tolist(), "probability": outputs.probabilities[0, 0].item()}
        pixels = inputs["pixel_values"]
        levels = torch.round((pixels[0] * 0.5 + 0.5) * 255).to(torch.uint8)
        assert torch.allclose((levels.float() - 127.5) / 127.5, pixels[0], atol=1e-6, rtol=0)
        arrays[f"{picture}.levels"] = levels
        arrays[f"{picture}.features"] = model.model.model.get_image_features(pixels, return_dict=True).pooler_output[0].contiguous()
        together = []
        for order in ORDERS:
            inputs = processor(images=[image], custom_policies=CUSTOM_POLICIES, policies=order, return_tensors="pt")
            outputs = model(**inputs)
            together.append({"order": order, "probabilities": outputs.probabilities[:, 0].tolist()})
        golden["runs"].append({"picture": picture, "alone": alone, "together": together})
    (OUT / name / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
    # `c` differs from `a` in how numbers are stored, which pictures do not see.
    if name != "c":
        # The normalised values themselves once; the others follow from their levels.
        arrays[f"{picture}.pixel_values"] = pixels[0].contiguous()
        save_file(arrays, OUT / name / "golden.safetensors")
    report(name, golden)


def report(name, golden):
    p = np.array([[run["alone"][policy]["probability"] for policy in POLICIES] for run in golden["runs"]])
    print(f"{name}: prompts of {[len(ids) for ids in golden['token_ids'].values()]} tokens")
    print(np.round(p, 3))
    by_order = max(
        abs(value - run["alone"][policy]["probability"])
        for run in golden["runs"] for batch in run["together"]
        for policy, value in zip(batch["order"], batch["probabilities"])
    )
    print(f"  spread over policies {np.ptp(p, axis=1).min():.3f}, over pictures {np.ptp(p, axis=0).min():.3f},"
          f" batch against alone {by_order:.1e}")
    assert np.ptp(p, axis=1).min() > 0.05 and np.ptp(p, axis=0).max() > 0.05, "too flat to show an error"


def main():
    # One thread: sums in one order, so that a second run gives the same bits.
    torch.set_num_threads(1)
    pictures = make_pictures(OUT / "pictures")
    for name, seed, dtype in [("a", 11, torch.float32), ("b", 12, torch.bfloat16), ("c", 11, torch.bfloat16)]:
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        tokenizer = make_tokenizer([TEMPLATE.replace("\\n", "\n"), *POLICIES.values(), "Yes\nNo\n" * 8], TEMPLATE, 1000)
        config = config_of(name, tokenizer)
        side = config.vision_config.image_size
        image_processor = Gemma3ImageProcessor(
            image_seq_length=config.mm_tokens_per_image, image_mean=[0.5] * 3, image_std=[0.5] * 3,
            size={"height": side, "width": side}, resample=2,
        )
        processor = ShieldGemma2Processor(
            image_processor=image_processor, tokenizer=tokenizer, chat_template=TEMPLATE,
            image_seq_length=config.mm_tokens_per_image,
        )
        model = ShieldGemma2ForImageClassification(config)
        randomise(model, seed)
        folder = OUT / name / "checkpoint"
        save_checkpoint(name, folder, model, processor, dtype)
        golden_of(name, folder, pictures)


if __name__ == "__main__":
    main()
