"""The three prompts as one sequence, so that a picture and the words before the policy are computed once.

Each policy's suffix sees the common beginning and itself, and its positions go on from there: the model
computes what it would for three prompts one by one, as shieldgate serves it.
"""

from dataclasses import dataclass

import numpy as np
import torch

import categories


@dataclass
class Prompts:
    ids: torch.Tensor
    positions: torch.Tensor
    image: torch.Tensor
    # Additive, [1, 1, length, length].
    mask: torch.Tensor
    # Where each policy's answer is read.
    last: torch.Tensor


def prompts(processor):
    picture = np.zeros((8, 8, 3), np.uint8)
    rows = []
    for policy in categories.POLICIES:
        inputs = processor(images=[picture], policies=[policy], return_tensors="pt")
        rows.append(inputs["input_ids"][0].tolist())
    shared = next(at for at, tokens in enumerate(zip(*rows)) if len(set(tokens)) > 1)
    ids, positions, owner = rows[0][:shared], list(range(shared)), [-1] * shared
    last = []
    for at, row in enumerate(rows):
        ids += row[shared:]
        positions += range(shared, len(row))
        owner += [at] * (len(row) - shared)
        last.append(len(ids) - 1)
    ids, owner = torch.tensor(ids), torch.tensor(owner)
    image = ids == processor.tokenizer.image_token_id
    order = torch.arange(len(ids))
    seen = order[None, :] <= order[:, None]
    seen |= image[None, :] & image[:, None]
    seen &= (owner[None, :] == -1) | (owner[None, :] == owner[:, None])
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return Prompts(ids, torch.tensor(positions), image, mask[None, None], torch.tensor(last))


def image_features(model, pixels):
    """`[pictures, tokens, hidden]` from normalised pixels."""
    inner = model.model.model
    return inner.multi_modal_projector(inner.vision_tower(pixel_values=pixels).last_hidden_state)


def yes_no(model, asked, features):
    """Logits of Yes and No, `[pictures, policies, 2]`."""
    inner = model.model.model.language_model
    size = features.shape[0]
    # No text embedding depends on the picture.
    embedded = inner.embed_tokens(asked.ids[None]).expand(size, -1, -1).clone()
    embedded[:, asked.image] = features.to(embedded.dtype)
    hidden = inner(
        inputs_embeds=embedded,
        position_ids=asked.positions[None],
        attention_mask={"full_attention": asked.mask, "sliding_attention": asked.mask},
        use_cache=False,
    ).last_hidden_state
    head = model.model.lm_head.weight[[model.yes_token_index, model.no_token_index]]
    return torch.nn.functional.linear(hidden[:, asked.last].to(head.dtype), head)


def normalised(pictures):
    """Samples 0 to 255 as the processor hands them to the model."""
    return (pictures.float() - 127.5) / 127.5
