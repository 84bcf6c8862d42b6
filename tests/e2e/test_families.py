"""A family with a network of its own, through `tagonce tag`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.e2e.ledger import Ledger
from tests.e2e.reference import own_scores
from tests.fixtures.command import Outcome
from tests.fixtures.pictures_of_families import pictures
from tests.fixtures.tiny_families import write_hydra35


def test_hydra_tags_pictures_of_all_shapes(tagonce: Callable[..., Outcome], sqlite_url: str, tmp_path: Path) -> None:
    """Batches of the worker mix sizes in another way than the reference here, one picture at a time."""
    (tmp_path / "in").mkdir()
    for number, data in enumerate(pictures().values()):
        (tmp_path / "in" / f"{number}.img").write_bytes(data)
    model = write_hydra35(tmp_path / "tiny-hydra")
    listed = sorted(str(path) for path in (tmp_path / "in").iterdir())
    (tmp_path / "list.txt").write_text("\n".join(listed))
    done = tagonce("tag", "list.txt", "--model", model, "--database", sqlite_url, "--floor", "0", "--batch-size", 4)
    assert done.code == 0, done.err
    assert f"{len(listed)} images tagged" in done.err
    rows = Ledger(sqlite_url)
    expected = own_scores(model, rows.uris(), chunk_size=64, batch_size=1)
    stored = rows.scores(20)
    assert stored.keys() == expected.keys()
    for uri, scores in stored.items():
        assert np.abs(scores - expected[uri]).max() <= 1
