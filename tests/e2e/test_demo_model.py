"""The demo model on photographs that everybody has: what ends in the database is what the model says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from db.names.uris import file_uri
from tests.e2e.ledger import Ledger
from tests.e2e.reference import own_scores
from tests.fixtures.command import Outcome
from workers.models.demo import demo_spec

FLOOR = 100
"""Ten-thousandths: the default."""


def test_the_cat_is_a_cat_and_every_score_is_the_models_own(
    tagonce: Callable[..., Outcome],
    skimage_photos: Path,
    sqlite_url: str,
) -> None:
    """At every threshold k / 10000 from the floor on, SQL keeps exactly the tags that the model's float32
    probabilities keep, for every photograph of scikit-image.
    """
    done = tagonce("tag", skimage_photos, "--model", "demo", "--database", sqlite_url)
    assert done.code == 0, done.err
    tags = [tag.name for tag in demo_spec().tags]
    rows = Ledger(sqlite_url)
    stored = rows.scores(len(tags))

    assert len(stored) >= 20
    assert stored[file_uri(str(skimage_photos / "chelsea.png"))][tags.index("cat")] > 5_000
    expected = own_scores("demo", rows.uris(), chunk_size=64, batch_size=8, floor=FLOOR)
    assert stored.keys() == expected.keys()
    for uri, scores in expected.items():
        # Equal floor(p * 10000) is equal answers: p >= k / 10000 exactly when floor(p * 10000) >= k.
        np.testing.assert_array_equal(stored[uri], scores, err_msg=uri)
