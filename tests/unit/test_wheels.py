"""`make wheels`: which packages a GPU host without a package index lacks."""

import runpy
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
WHEELS = runpy.run_path(str(ROOT / "deploy" / "wheels.py"))
needed: Callable[[Iterable[str], Collection[str], str], set[str]] = WHEELS["needed"]
ON_HOST = WHEELS["ON_HOST"].split(",")


def test_all_that_is_needed_but_torch_and_what_only_torch_needs() -> None:
    everything, without = (needed([WHEELS["TAGONCE"]], left_out, "3.12") for left_out in ((), ON_HOST))
    of_host = needed(ON_HOST, (), "3.12")
    assert without < everything
    assert everything - without <= of_host
    assert {"numba", "llvmlite", "obstore", "celery", "redis", "psycopg", "psycopg-binary"} <= without
    assert {"torch", "numpy", "sympy", "triton"} & without == set()
    assert [name for name in without if name.startswith("nvidia-")] == []


def test_versions_are_those_that_were_tested() -> None:
    pins = {canonicalize_name(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert needed([WHEELS["TAGONCE"]], ON_HOST, "3.12") - {"tagonce"} - pins == set()


def test_requirements_are_those_of_the_version_of_python_on_the_host() -> None:
    assert "tomli" not in needed(["alembic"], (), "3.12")
    with pytest.raises(SystemExit, match=r"tomli is needed on Python 3\.10 and is not installed here"):
        needed(["alembic"], (), "3.10")
