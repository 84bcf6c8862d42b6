# ruff: noqa: INP001, T201 -- a script of `make wheels`, no package
"""Collects wheels for a host without a package index that has torch, torchvision, timm and numpy.

    python deploy/wheels.py FOLDER [--python 3.12] [--glibc 2.34] [--without torch,torchvision,timm,numpy]

The folder gets the wheel of tagonce, the wheels of all that it, its extras and its tests on a device need, and
`requirements.txt`. docs/gpu.md says how to install from it. Versions are those that are installed here, which are the
ones of constraints.txt. Run it in the project's environment (`make wheels`), on the same kind of processor.
"""

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Iterable
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
TAGONCE = "tagonce[local,postgres]"
ON_HOST = "torch,torchvision,timm,numpy"
OLDEST_GLIBC, GLIBC = 17, "2.34"
"""Minor versions of manylinux tags start with 2.17; Ubuntu 22.04 and all that is newer have at least 2.34."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="its wheels are deleted first")
    parser.add_argument("--python", default=platform.python_version().rpartition(".")[0], help="version on the host")
    parser.add_argument("--glibc", default=GLIBC, help="version on the host")
    parser.add_argument(
        "--without", default=ON_HOST, help="packages that the host has; what only they need is left out"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for old in options.folder.glob("*.whl"):
        old.unlink()
    wanted = [TAGONCE, *tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["gpu"]]
    left_out = {canonicalize_name(name) for name in options.without.split(",")}
    wanted = [text for text in wanted if canonicalize_name(Requirement(text).name) not in left_out]
    names = needed(wanted, left_out, options.python) - {"tagonce"}
    download([f"{name}=={metadata.version(name)}" for name in sorted(names)], options)
    build(options.folder)
    (options.folder / "requirements.txt").write_text("\n".join(wanted) + "\n")
    wheels = list(options.folder.glob("*.whl"))
    print(f"{len(wheels)} wheels, {sum(wheel.stat().st_size for wheel in wheels) / 1e6:,.0f} MB, in {options.folder}")


def needed(wanted: Iterable[str], left_out: Collection[str], python: str) -> set[str]:
    """Names of the packages that some requirements need, themselves included, on another version of Python.

    Raises:
        SystemExit: one of them is not installed here, so its requirements are not known.
    """
    names: set[str] = set()
    seen: set[tuple[str, str]] = set()
    requirements = [Requirement(text) for text in wanted]
    while requirements:
        one = requirements.pop()
        name = canonicalize_name(one.name)
        if name in left_out:
            continue
        names.add(name)
        for extra in {"", *one.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
            environment["extra"] = extra
            try:
                found = [Requirement(text) for text in metadata.requires(name) or ()]
            except metadata.PackageNotFoundError:
                raise SystemExit(
                    f"{name} is needed on Python {python} and is not installed here: run `make wheels`, or install it."
                ) from None
            requirements += [two for two in found if two.marker is None or two.marker.evaluate(environment)]
    return names


def download(pinned: list[str], options: argparse.Namespace) -> None:
    """Wheels for the host, of its oldest manylinux version first: pip takes the first that exists."""
    minor = int(options.glibc.partition(".")[2])
    machine = platform.machine()
    tags = [f"manylinux_2_{number}_{machine}" for number in range(OLDEST_GLIBC, minor + 1)]
    tags = [f"manylinux1_{machine}", f"manylinux2014_{machine}", *tags]
    of_host = ["--python-version", options.python, "--implementation", "cp", "--only-binary=:all:", "--no-deps"]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    pip("download", "--dest", str(options.folder), *of_host, *platforms, *pinned)


def build(folder: Path) -> None:
    """The wheel of tagonce, from a copy: a build leaves files beside its source, which the next one would include."""
    with tempfile.TemporaryDirectory(prefix="tagonce-wheel-") as place:
        for name in ("db", "producer", "workers", "tagonce"):
            shutil.copytree(ROOT / name, Path(place) / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
            shutil.copy(ROOT / name, place)
        pip("wheel", "--no-deps", "--wheel-dir", str(folder), place)


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


if __name__ == "__main__":
    main()
