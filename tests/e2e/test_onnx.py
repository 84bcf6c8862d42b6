"""An ONNX tagger from a folder of pictures to stored scores."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from db.names.uris import file_uri
from db.scores import SCALE
from tests.e2e.ledger import Ledger
from tests.fixtures.command import Outcome
from tests.fixtures.onnx_models import write_onnx
from tests.unit.test_onnx_families import FAMILIES

CLOSE = 1e-5


def test_a_wd_tagger_tags_a_folder(
    tagonce: Callable[..., Outcome], make_photos: Callable[..., list[Path]], sqlite_url: str, tmp_path: Path
) -> None:
    """More pictures than a batch, and one that cannot be read."""
    family, folder = FAMILIES["wd"], tmp_path / "wd-v1-4-moat-tagger-v2"
    write_onnx(folder, family.tiny)
    family.write(folder)
    photos = make_photos(11)
    broken = photos.pop()
    broken.write_bytes(broken.read_bytes()[:100])
    options = ("--model", folder, "--database", sqlite_url, "--floor", "0")
    done = tagonce("tag", "photos", *options, "--batch-size", "4")
    assert done.code == 0, done.err
    assert "10 images tagged" in done.err
    rows = Ledger(sqlite_url)
    assert rows.failed() == {file_uri(str(broken)): "corrupt"}
    stored = rows.scores(family.tiny.tags)
    for photo in photos:
        expected = family.tiny.run(family.planes(Image.open(io.BytesIO(photo.read_bytes()))))
        scores = stored[file_uri(str(photo))]
        assert (np.floor((expected - CLOSE) * SCALE) <= scores).all()
        assert (scores <= (expected + CLOSE) * SCALE).all()

    found = tagonce("doctor", *options[:4], "--json", TAGONCE_FLOOR="0")
    words = [one["message"] for one in json.loads(found.out) if one["check"] == "model"]
    assert any("runs on ONNX Runtime" in one and "CPUExecutionProvider" in one for one in words), words
    assert any(f"registered as {folder.name}" in one for one in words), words
