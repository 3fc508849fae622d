"""Fetches the emoji sets by npm and draws each emoji once into a small array.

The cache lies outside the tree; nothing fetched is committed.
"""

import io
import json
import subprocess
import tarfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import resvg_py
from PIL import Image

import categories

# Pixels a side of a drawn emoji, and what of them it may fill.
SIDE = 96
FILLED = 88


@dataclass(frozen=True)
class Set:
    """One art set: its npm package and its licence."""

    package: str
    licence: str


TRAINED = {
    "noto": Set("@iconify-json/noto@1.2.9", "Apache-2.0"),
    "noto-v1": Set("@iconify-json/noto-v1@1.2.5", "Apache-2.0"),
    "twemoji": Set("@iconify-json/twemoji@1.2.5", "CC-BY-4.0"),
    "fluent-emoji": Set("@iconify-json/fluent-emoji@1.2.7", "MIT"),
    "fluent-emoji-flat": Set("@iconify-json/fluent-emoji-flat@1.2.6", "MIT"),
    "emojione": Set("@iconify-json/emojione@1.2.3", "CC-BY-4.0"),
    "fxemoji": Set("@iconify-json/fxemoji@1.2.2", "Apache-2.0"),
    "streamline-emojis": Set("@iconify-json/streamline-emojis@1.2.4", "CC-BY-4.0"),
}
# Never trained on, nor looked at while anything was chosen.
UNSEEN = {
    "openmoji": Set("@iconify-json/openmoji@1.2.29", "CC-BY-SA-4.0"),
    "emojione-v1": Set("@iconify-json/emojione-v1@1.2.3", "CC-BY-SA-4.0"),
}
SETS = {**TRAINED, **UNSEEN}


def fetch_npm(package, folder):
    """The package's tarball, fetched once by npm itself."""
    folder.mkdir(parents=True, exist_ok=True)
    name = package.removeprefix("@").replace("/", "-").replace("@", "-") + ".tgz"
    if not (folder / name).exists():
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / name


def icons(name, cache):
    """The set's SVG drawings by name."""
    with tarfile.open(fetch_npm(SETS[name].package, cache / "npm")) as packed:
        described = json.load(packed.extractfile("package/icons.json"))
    side = (described.get("width", 16), described.get("height", 16))
    return {
        icon: (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
            f' viewBox="{drawing.get("left", 0)} {drawing.get("top", 0)}'
            f' {drawing.get("width", side[0])} {drawing.get("height", side[1])}">{drawing["body"]}</svg>'
        )
        for icon, drawing in described["icons"].items()
    }


def draw(svg, side):
    """RGBA, cut to what is drawn, the longer side `side` pixels; None where nothing is."""
    return trimmed(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=2 * side)))), side)


def trimmed(picture, side):
    """RGBA, cut to what is not transparent, the longer side `side` pixels; None where everything is."""
    picture = picture.convert("RGBA")
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    if box is None:
        return None
    picture = picture.crop(box)
    scale = side / max(picture.size)
    size = [max(1, round(length * scale)) for length in picture.size]
    return picture.convert("RGBa").resize(size, Image.Resampling.BOX, reducing_gap=None).convert("RGBA")


def _drawn(svg):
    try:
        picture = draw(svg, FILLED)
    except ValueError:
        return None
    return None if picture is None else squared(picture)


def squared(picture):
    """`uint8 [SIDE, SIDE, 4]` with the picture in its middle."""
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return _bled(np.asarray(square))


def _bled(picture):
    """What is transparent takes the colour beside it, so that shrinking brings no dark rim."""
    alpha = picture[..., 3:].astype(np.float32) / 255
    premultiplied = picture[..., :3] * alpha
    colours = picture[..., :3].astype(np.float32)
    known = alpha > 0.1
    for sigma in (1.5, 4.0, 12.0):
        cover = cv2.GaussianBlur(alpha, (0, 0), sigma)[..., None]
        near = cv2.GaussianBlur(premultiplied, (0, 0), sigma) / np.maximum(cover, 1e-4)
        colours = np.where(known, colours, near)
        known = known | (cover > 0.02)
    return np.concatenate([np.clip(colours, 0, 255).astype(np.uint8), picture[..., 3:]], axis=-1)


def wanted(name, icon):
    """Skin tones only where they are stand-ins: five times every waving hand teaches nothing."""
    policy = categories.policy_of(name, icon)
    return policy is not None and (policy != "safe" or not categories.has_tone(icon))


def glyphs(name, cache):
    """`(names, uint8 [N, SIDE, SIDE, 4])` of a set, without what categories leaves out."""
    path = cache / "drawn" / f"{name}.npz"
    if not path.exists():
        drawings = {icon: svg for icon, svg in sorted(icons(name, cache).items()) if wanted(name, icon)}
        with ProcessPoolExecutor(2) as pool:
            drawn = dict(zip(drawings, pool.map(_drawn, drawings.values(), chunksize=32)))
        drawn = {icon: picture for icon, picture in drawn.items() if picture is not None}
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, names=np.array(list(drawn)), pictures=np.stack(list(drawn.values())))
    saved = np.load(path)
    return [str(icon) for icon in saved["names"]], saved["pictures"]


if __name__ == "__main__":
    import sys
    import time
    from collections import Counter

    for name in SETS:
        begun = time.time()
        names, pictures = glyphs(name, Path(sys.argv[1]))
        counts = Counter(categories.policy_of(name, icon) for icon in names)
        print(name, pictures.shape[0], dict(counts), f"{time.time() - begun:.0f} s", flush=True)
