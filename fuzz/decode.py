"""Fuzzes the decoder with mutations of small files of every format. Any error other than ImageError is a finding.

`make fuzz`, or for longer: `python fuzz/decode.py -max_total_time=36000 CORPUS`; CORPUS is a folder that
keeps inputs which reached new lines. Coverage is measured in the Python part of Pillow, not in its C part. Findings
become tests.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL"]):
    from PIL import Image

    Image.init()

from db.errors import ImageError
from tests.fixtures.hostile import MODEL, broken, whole
from workers.images.decode import Decoder

DECODER = Decoder(MODEL, max_pixels=1_000_000)


def decode(data: bytes) -> None:
    try:
        DECODER.decode(data)
    except ImageError as error:
        if error.detail != " ".join(error.detail.split()) or "\0" in error.detail:
            raise AssertionError(f"more than one line: {error.detail!r}") from error


def main() -> None:
    corpus = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    if corpus:
        corpus[0].mkdir(parents=True, exist_ok=True)
        for name, data in [*whole().items(), *broken(500, seed=0)]:
            (corpus[0] / name).write_bytes(data)
    atheris.Setup(sys.argv, decode)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
