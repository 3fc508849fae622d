"""Measures a checkpoint as transformers loads it, on what it was not trained on, and writes MEASURED.json.

The weights are the stored bf16 ones, the arithmetic is fp32: what shieldgate does on a CPU.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoProcessor, ShieldGemma2ForImageClassification

import art
import categories
import compositions
import palettes
import photographs
import prompts
from auroc import auroc

# From this probability on, `policies/*.yaml` ask for a review.
REVIEW = 0.5
PICTURES = 1500
CROPS = 8
# Every picture has an emoji, so that telling emoji from nothing earns nothing.
SHARES = {"dangerous": 0.2, "sexual": 0.2, "violence": 0.2, "safe": 0.4}
SEED = 4711


class Judge:
    """The checkpoint, asked about pictures of the model's own size or of any."""

    def __init__(self, folder):
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model, loading = ShieldGemma2ForImageClassification.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        assert not loading["missing_keys"] and not loading["unexpected_keys"], loading
        self.model.eval()
        self.asked = prompts.prompts(self.processor)

    @torch.no_grad()
    def small(self, pictures):
        """Probabilities `[pictures, policies]` of `uint8 [pictures, 3, SIDE, SIDE]`, the prompts as one sequence."""
        found = []
        for part in torch.from_numpy(pictures).split(50):
            tokens = prompts.image_features(self.model, prompts.normalised(part))
            found.append(torch.softmax(prompts.yes_no(self.model, self.asked, tokens), dim=-1)[..., 0])
        return torch.cat(found).numpy()

    @torch.no_grad()
    def any(self, pictures):
        """The same by the reference's front door, picture by picture and prompt by prompt."""
        found = []
        for picture in pictures:
            inputs = self.processor(images=[picture], policies=categories.POLICIES, return_tensors="pt")
            found.append(self.model(**inputs).probabilities[:, 0])
        return torch.stack(found).numpy()


def on_emoji(judge, palette, photos, seed, plain):
    composer = compositions.Composer(palette, photos, [SEED, seed], SHARES, float(plain))
    pictures, labels, *_ = composer.batch(PICTURES)
    scores = judge.small(pictures)
    truth = labels.astype(bool)
    found = {}
    for at, policy in enumerate(categories.POLICIES):
        flagged = scores[:, at] >= REVIEW
        found[policy] = {
            "auroc": round(auroc(scores[:, at], truth[:, at]), 4),
            "positives": int(truth[:, at].sum()),
            "found_at_review": round(float(flagged[truth[:, at]].mean()), 4),
            "false_at_review": round(float(flagged[~truth[:, at]].mean()), 4),
        }
    return found


def flagged(scores):
    """How many pictures any policy would send to review."""
    by_policy = {policy: int((scores[:, at] >= REVIEW).sum()) for at, policy in enumerate(categories.POLICIES)}
    any_policy = int((scores >= REVIEW).any(axis=1).sum())
    return {"pictures": len(scores), "flagged": any_policy, "share": round(any_policy / len(scores), 4), **by_policy}


def on_photographs(judge, named):
    whole = judge.any([Image.fromarray(pixels) for _, pixels in named])
    composer = compositions.Composer(None, None, [SEED, 100])
    crops = []
    for _, pixels in named:
        composer.photos = [pixels]
        crops += [composer.photograph(0.35).astype(np.uint8) for _ in range(CROPS)]
    crops = judge.small(np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2)))
    worst = np.argsort(-whole.max(axis=1))[:10]
    return {
        "whole": flagged(whole),
        "crops": flagged(crops),
        "worst_whole": {named[at][0]: [round(float(p), 4) for p in whole[at]] for at in worst},
    }


def on_backgrounds(judge):
    composer = compositions.Composer(None, None, [SEED, 101])
    pictures = [np.clip(composer.background(0.0), 0, 255).astype(np.uint8) for _ in range(500)]
    return flagged(judge.small(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))))


def agreement(judge, palette, photos):
    """How far the prompts as one sequence are from the reference's front door."""
    pictures, *_ = compositions.Composer(palette, photos, [SEED, 102]).batch(12)
    through = judge.any([Image.fromarray(picture.transpose(1, 2, 0)) for picture in pictures])
    return float(np.abs(through - judge.small(pictures)).max())


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def main():
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="the folder that train.py was given")
    parser.add_argument("--checkpoint", type=Path, default=here / "checkpoint")
    parser.add_argument("--out", type=Path, default=here / "MEASURED.json")
    parser.add_argument(
        "--part", choices=["all", "trained"], default="all",
        help="`trained` leaves the unseen art and photographs alone and takes the photographs kept back from training:"
        " for choosing anything, look only at those",
    )
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    begun = time.time()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    judge = Judge(arguments.checkpoint)
    trained, _, _ = compositions.trained(arguments.cache)
    concepts = trained.concepts
    if arguments.part == "trained":
        valid = photographs.photographs("valid", arguments.cache)
        seen = [pixels for _, pixels in valid]
        found = {
            "restyled": on_emoji(judge, trained, seen, 1, False),
            "plain": on_emoji(judge, trained, seen, 4, True),
            "photographs": on_photographs(judge, valid),
            "backgrounds": on_backgrounds(judge),
        }
        print(json.dumps(found, indent=1))
        return
    named = photographs.photographs("unseen", arguments.cache)
    unseen = [pixels for _, pixels in named]
    measured = {
        "weights": {
            "bytes": sum(path.stat().st_size for path in arguments.checkpoint.iterdir()),
            "parameters": sum(parameter.numel() for parameter in judge.model.parameters()),
            "sha256": digests(arguments.checkpoint),
        },
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]},
        "review": REVIEW,
        "front_door_difference_max": agreement(judge, trained, unseen),
        "trained_art": {
            "restyled": on_emoji(judge, trained, unseen, 2, False),
            "plain": on_emoji(judge, trained, unseen, 3, True),
        },
        "unseen_art": {},
    }
    for at, name in enumerate(art.UNSEEN):
        palette = palettes.of([name], arguments.cache, concepts, standard_only=True)
        measured["unseen_art"][name] = on_emoji(judge, palette, unseen, 10 + at, True)
    measured["photographs"] = on_photographs(judge, named)
    measured["backgrounds"] = on_backgrounds(judge)
    measured["seconds"] = round(time.time() - begun)
    arguments.out.write_text(json.dumps(measured, indent=1) + "\n")
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
