"""Trains the demo model on two CPU cores, in two stages that each last a set time.

1. *vision*: the vision tower and the projection, under a throw-away head that reads the image tokens: is a
   stand-in for each policy there, and which emoji is it.
2. *whole*: the vision tower and the decoder together on Yes and No at the last position of each prompt.

Interrupted, it goes on where the last saved state was. See README.md.
"""

import argparse
import math
import os
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import distributed, multiprocessing
from torch.nn import functional

import architecture
import categories
import compositions
import photographs
import prompts
from auroc import auroc

BATCH = {"vision": 96, "whole": 96}
# Of AdamW, for embeddings, norms, biases and heads, and of Muon, for the matrices of the layers.
LEARNING_RATE = {"adamw": {"vision": 1.2e-3, "whole": 1.0e-3}, "muon": {"vision": 3.0e-3, "whole": 2.0e-3}}
# What the pictures show, out of their sum. The second stage, which decides what reaches 0.5, sees more without emoji.
SHARES = {"vision": compositions.SHARES, "whole": {**compositions.SHARES, "none": 0.42}}
# A wrong Yes costs so many wrong Nos: the log showed photographs kept back a little above 0.5.
WRONG_YES = 4.0
# In the second stage the tower, already trained, moves less.
TOWER_SHARE = 0.25
WARM_UP = 0.02
# The share of the first stage in which the pictures grow harder.
EASY = 0.3
SAVE_SECONDS = 180
SEED = 20261125


class Head(torch.nn.Module):
    """The throw-away head: policies and emoji from the mean and maximum of the image tokens, and where they are."""

    def __init__(self, concepts):
        super().__init__()
        width = 2 * architecture.TEXT["hidden_size"]
        self.policies = torch.nn.Linear(width, len(categories.POLICIES))
        self.concepts = torch.nn.Linear(width, concepts)
        self.where = torch.nn.Linear(architecture.TEXT["hidden_size"], len(categories.POLICIES) + 1)

    def forward(self, tokens):
        seen = torch.cat([tokens.mean(1), tokens.amax(1)], dim=-1)
        return self.policies(seen), self.concepts(seen), self.where(tokens)


def head_loss(head, tokens, labels, concepts, where):
    policies, emoji, there = head(tokens)
    loss = 2 * functional.binary_cross_entropy_with_logits(policies.float(), labels)
    loss = loss + 2 * functional.binary_cross_entropy_with_logits(there.float(), where)
    return loss + 0.5 * functional.cross_entropy(emoji.float(), concepts, ignore_index=-1)


def whole_loss(logits, labels):
    # Yes, index 0, is a violation.
    weight = torch.tensor([1.0, WRONG_YES])
    return functional.cross_entropy(logits.float().flatten(0, 1), (1 - labels).long().flatten(), weight)


@torch.no_grad()
def validate(stage, model, head, asked, held):
    """AUROC by policy on new compositions, and the share of pictures without emoji that any policy flags, for the log.

    Both on the emoji trained on, and on photographs and cut-outs kept back from it.
    """
    (pictures, labels, *_), (without, *_) = held
    model.eval()
    scores = answers(stage, model, head, asked, pictures)
    flagged = (answers(stage, model, head, asked, without) >= 0).any(axis=1).mean()
    model.train()
    found = [round(auroc(scores[:, at], labels[:, at]), 4) for at in range(labels.shape[1])]
    return f"AUROC {found}  flagged without emoji {flagged:.4f}"


def answers(stage, model, head, asked, pictures):
    """Log odds by policy, `[pictures, policies]`."""
    scores = []
    for part in torch.from_numpy(pictures).split(64):
        tokens = prompts.image_features(model, prompts.normalised(part))
        if stage == "vision":
            scores.append(head(tokens)[0])
        else:
            logits = prompts.yes_no(model, asked, tokens)
            scores.append(logits[..., 0] - logits[..., 1])
    return torch.cat(scores).numpy()


def kept_back(palette, cache):
    """What `validate` looks at: pictures with emoji, all of them plain, and pictures without."""
    photos = [pixels for _, pixels in photographs.photographs("valid", cache)]
    things = photographs.cutouts("valid", cache)
    with_emoji = {kind: share for kind, share in compositions.SHARES.items() if kind not in ("two", "none")}
    return [
        compositions.Composer(palette, photos, [SEED, 7, at], shares, 1.0, things).batch(768)
        for at, shares in enumerate([with_emoji, {"none": 1.0}])
    ]


def groups(stage, model, head):
    """Parameters by optimizer and learning rate; norms, biases and embeddings are not decayed."""
    tower = {id(p) for part in ("vision_tower", "multi_modal_projector") for p in getattr(model.model.model, part).parameters()}
    found = {}
    for name, parameter in [*model.named_parameters(), *head.named_parameters()]:
        in_tower = id(parameter) in tower
        if stage == "vision" and not in_tower and not name.startswith(("policies", "concepts", "where")):
            continue
        share = TOWER_SHARE if stage == "whole" and in_tower else 1.0
        matrix = parameter.dim() == 2 and ".layers." in name
        decay = 0.05 if parameter.dim() >= 2 and "embed" not in name else 0.0
        found.setdefault("muon" if matrix else "adamw", {}).setdefault((share, decay), []).append(parameter)
    return {
        kind: [dict(params=members, share=share, weight_decay=decay) for (share, decay), members in by_rate.items()]
        for kind, by_rate in found.items()
    }


def optimizers(stage, model, head):
    found = groups(stage, model, head)
    return {
        "adamw": torch.optim.AdamW(found["adamw"], lr=0.0, betas=(0.9, 0.98)),
        "muon": torch.optim.Muon(found["muon"], lr=0.0, adjust_lr_fn="match_rms_adamw"),
    }


def rate(kind, stage, done):
    """Warm-up, then a cosine to nothing; `done` is the share of the stage's time."""
    return LEARNING_RATE[kind][stage] * min(1.0, done / WARM_UP) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def save_state(path, state):
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def average(parameters):
    """The mean gradient over the workers, in one exchange."""
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for parameter, part in zip(parameters, flat.split([parameter.numel() for parameter in parameters])):
        parameter.grad.copy_(part.view_as(parameter))


def elapsed(spent):
    """The first worker's clock, so that all of them agree on when a stage ends."""
    agreed = torch.tensor([spent])
    distributed.broadcast(agreed, 0)
    return agreed.item()


def run(stage, seconds, model, head, asked, material, held, state_path, resumed):
    """One stage; returns what it did. Its time counts across interruptions."""
    rank, workers = distributed.get_rank(), distributed.get_world_size()
    by_kind = optimizers(stage, model, head)
    step, spent = 0, 0.0
    if resumed:
        for kind, optimizer in by_kind.items():
            optimizer.load_state_dict(resumed["optimizers"][kind])
        step, spent = resumed["step"], resumed["spent"]
    palette, photos, things = material
    seed = [SEED, int(stage == "whole"), step, rank]
    composer = compositions.Composer(palette, photos, seed, SHARES[stage], compositions.PLAIN, things, varied=True)
    grouped = [(kind, group) for kind, optimizer in by_kind.items() for group in optimizer.param_groups]
    parameters = [parameter for _, group in grouped for parameter in group["params"]]
    before, begun, saved, losses = spent, time.monotonic(), time.monotonic(), []
    while spent < seconds:
        composer.ease = max(0.0, 1 - spent / seconds / EASY) if stage == "vision" else 0.0
        pictures, labels, concepts, where = map(torch.from_numpy, composer.batch(BATCH[stage] // workers))
        for kind, group in grouped:
            group["lr"] = rate(kind, stage, spent / seconds) * group["share"]
        with torch.autocast("cpu", torch.bfloat16):
            tokens = prompts.image_features(model, prompts.normalised(pictures))
            loss = head_loss(head, tokens, labels, concepts, where)
            if stage == "whole":
                loss = whole_loss(prompts.yes_no(model, asked, tokens), labels) + 0.25 * loss
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        loss.backward()
        average(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in by_kind.values():
            optimizer.step()
        losses.append(loss.item())
        step += 1
        spent = elapsed(before + time.monotonic() - begun)
        if rank == 0 and (time.monotonic() - saved > SAVE_SECONDS or spent >= seconds):
            print(
                f"{stage} {spent:6.0f} s  step {step}  pictures {step * BATCH[stage]}  loss {np.mean(losses):.4f}"
                f"  {validate(stage, model, head, asked, held)}",
                flush=True,
            )
            saved, losses = time.monotonic(), []
            save_state(state_path, dict(
                stage=stage, step=step, spent=spent, model=model.state_dict(), head=head.state_dict(),
                optimizers={kind: optimizer.state_dict() for kind, optimizer in by_kind.items()},
            ))
    return dict(seconds=round(spent), steps=step, pictures=step * BATCH[stage])


def worker(rank, arguments):
    """One of the processes that train the same model, each on pictures of its own."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{arguments.state.resolve()}/meeting", rank=rank, world_size=arguments.workers
    )
    torch.manual_seed(SEED)
    processor = architecture.make_processor()
    model = architecture.make_model(processor.tokenizer)
    # Several times as fast here as torch's fused attention, whose CPU kernel is made for long sequences.
    model.set_attn_implementation("eager")
    asked = prompts.prompts(processor)
    material = compositions.trained(arguments.cache)
    head = Head(len(material[0].concepts))
    held = kept_back(material[0], arguments.cache) if rank == 0 else None
    state_path = arguments.state / "state.pt"
    resumed = torch.load(state_path) if state_path.exists() else None
    if resumed:
        model.load_state_dict(resumed["model"])
        head.load_state_dict(resumed["head"])
    if rank == 0:
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(f"{parameters} parameters, prompts of {len(asked.ids)} tokens in all, {len(material[0].pictures)} drawings,"
              f" {len(material[1])} photographs, {len(material[2])} cut-outs", flush=True)
    model.train()
    for stage, minutes in [("vision", arguments.vision_minutes), ("whole", arguments.whole_minutes)]:
        if resumed and resumed["stage"] == "whole" and stage == "vision":
            continue
        mine = resumed if resumed and resumed["stage"] == stage else None
        done = run(stage, 60 * minutes, model, head, asked, material, held, state_path, mine)
        if rank == 0:
            print(stage, done, flush=True)
    if rank == 0:
        architecture.save(model, processor, arguments.out)
    distributed.barrier()
    distributed.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the tree for what is fetched")
    parser.add_argument("--state", type=Path, required=True, help="folder for the training's own state")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument("--vision-minutes", type=float, default=57)
    parser.add_argument("--whole-minutes", type=float, default=21)
    # Workers of one thread each: threads of one process wait for each other at every operation, workers once a
    # step, which is much where the machine is shared.
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    arguments.state.mkdir(parents=True, exist_ok=True)
    (arguments.state / "meeting").unlink(missing_ok=True)
    # Before the workers look for it, both at once.
    compositions.trained(arguments.cache)
    multiprocessing.spawn(worker, (arguments,), arguments.workers)


if __name__ == "__main__":
    main()
