#!/usr/bin/env python3
"""Says in one sentence what a build lacks, before cargo says it in a hundred lines."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def main():
    trouble = lacking()
    if trouble:
        print(f"error: {trouble}", file=sys.stderr)
        return 1
    return 0


def lacking():
    wanted = re.search(r'^rust-version = "([0-9.]+)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    get_rust = f"  hint: https://rustup.rs installs it, `rustup update stable` renews it (Rust {wanted} or newer)"
    if shutil.which(os.environ.get("CARGO", "cargo")) is None:
        return f"no cargo on the PATH\n{get_rust}"
    try:
        told = subprocess.run([os.environ.get("RUSTC", "rustc"), "--version"], cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        return f"rustc does not run ({error.strerror})\n{get_rust}"
    found = re.match(r"rustc (\d+)\.(\d+)", told.stdout)
    if told.returncode != 0 or found is None:
        return f"rustc does not run: {told.stderr.strip()}\n{get_rust}"
    if tuple(map(int, found.groups())) < tuple(map(int, wanted.split(".")[:2])):
        return f"{told.stdout.strip()} is too old: Rust {wanted} or newer is needed\n{get_rust}"
    if shutil.which(os.environ.get("CC", "cc").split()[0]) is None:
        return "no C compiler, which Rust needs for linking\n  hint: apt-get install build-essential"
    return None


if __name__ == "__main__":
    sys.exit(main())
