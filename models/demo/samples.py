"""Composes the demo pictures of `service/samples/demo`, larger than the model's own size, from drawings as their sets made them.

For each picture the first of a few seeded tries on which the checkpoint is right and clear is kept: they show
what an answer looks like and measure nothing.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

import art
import categories
from evaluate import Judge

SIDE = 384
BYTES_MAX = 15 * 1024
TRIES = 40
SEED = 90125
# From here on, and up to here, an answer is clear.
YES, NO = 0.8, 0.2


def gradient(top, bottom):
    steps = np.linspace(0, 1, SIDE)[:, None, None]
    pixels = np.array(top) * (1 - steps) + np.array(bottom) * steps
    return Image.fromarray(np.broadcast_to(pixels, (SIDE, SIDE, 3)).round().astype(np.uint8))


# File, what it shows, the policy it breaks, art set and icon of each emoji with its size, and the colours behind.
PICTURES = [
    ("bomb.png", "a bomb", "dangerous", [("twemoji", "bomb", 0.62)], ((214, 234, 248), (133, 193, 233))),
    ("syringe.webp", "a syringe and a pill", "dangerous", [("noto", "syringe", 0.5), ("noto", "pill", 0.4)], ((232, 246, 239), (162, 217, 206))),
    ("swords.jpg", "crossed swords", "dangerous", [("noto", "crossed-swords", 0.7)], ((253, 235, 208), (245, 203, 167))),
    ("kiss.webp", "the mark of a kiss", "sexual", [("noto", "kiss-mark", 0.66)], ((255, 255, 255), (250, 219, 216))),
    ("eighteen.jpg", "the sign for no one under eighteen", "sexual", [("fluent-emoji-flat", "no-one-under-eighteen", 0.68)], ((234, 237, 237), (174, 182, 191))),
    ("blood.png", "a drop of blood", "violence", [("noto", "drop-of-blood", 0.62)], ((255, 255, 255), (213, 216, 220))),
    ("skull.webp", "a skull and crossbones", "violence", [("twemoji", "skull-and-crossbones", 0.66)], ((93, 109, 126), (44, 62, 80))),
    ("dog.webp", "a dog's face", None, [("noto", "dog-face", 0.66)], ((174, 214, 241), (171, 235, 198))),
    ("cat.webp", "a cat's face", None, [("twemoji", "cat-face", 0.66)], ((253, 237, 236), (245, 183, 177))),
    ("grin.jpg", "a grinning face", None, [("noto", "grinning-face", 0.64)], ((252, 243, 207), (249, 231, 159))),
]


def compose(drawings, behind, random):
    """Side by side where there are two, else near the middle; a little turned."""
    canvas = gradient(*behind)
    centres = [(0.5, 0.5)] if len(drawings) == 1 else [(0.36, 0.42), (0.74, 0.7)]
    for (svg, size), centre in zip(drawings, centres):
        drawn = art.draw(svg, round(size * SIDE)).rotate(
            random.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True
        )
        x, y = (round(c * SIDE + random.uniform(-0.04, 0.04) * SIDE) for c in centre)
        canvas.paste(drawn, (x - drawn.width // 2, y - drawn.height // 2), drawn)
    return canvas


def packed(picture, name):
    """The file's bytes, in the format that its name tells, at most BYTES_MAX."""
    kind = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG"}[Path(name).suffix]
    if kind == "PNG":
        # Few colours: a gradient and one flat drawing.
        picture = picture.resize((SIDE // 2, SIDE // 2), Image.Resampling.LANCZOS).quantize(96, dither=Image.Dither.NONE)
    for quality in (90, 80, 70, 60):
        body = io.BytesIO()
        picture.save(body, kind, **({"optimize": True} if kind == "PNG" else {"quality": quality}))
        if len(body.getvalue()) <= BYTES_MAX:
            return body.getvalue()
    raise ValueError(f"{name} does not fit {BYTES_MAX} bytes")


def clear(scores, policy):
    return all(score >= YES if name == policy else score <= NO for name, score in zip(categories.POLICIES, scores))


def main():
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="the folder that train.py was given")
    parser.add_argument("--checkpoint", type=Path, default=here / "checkpoint")
    parser.add_argument("--out", type=Path, default=here.parents[1] / "service/samples/demo")
    arguments = parser.parse_args()
    judge = Judge(arguments.checkpoint)
    sets = {name: art.icons(name, arguments.cache) for name in {name for row in PICTURES for name, *_ in row[3]}}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for at, (name, what, policy, emoji, behind) in enumerate(PICTURES):
        drawings = [(sets[of][icon], size) for of, icon, size in emoji]
        for attempt in range(TRIES):
            body = packed(compose(drawings, behind, np.random.default_rng([SEED, at, attempt])), name)
            scores = judge.any([Image.open(io.BytesIO(body)).convert("RGB")])[0]
            if clear(scores, policy):
                break
        verdict = "clear" if clear(scores, policy) else "NOT CLEAR"
        (arguments.out / name).write_bytes(body)
        found = ", ".join(f"{asked} {score:.3f}" for asked, score in zip(categories.POLICIES, scores))
        print(f"{name}: {what}; {policy or 'safe'}; {found}; {len(body)} bytes; try {attempt + 1}, {verdict}", flush=True)


if __name__ == "__main__":
    main()
