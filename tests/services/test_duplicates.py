"""Identical files under another reference get the stored result: nothing is decoded or inferred again."""

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from sqlalchemy import select

from db.database import Database
from db.errors import Reason
from db.ledger import images, run_progress
from db.ledger.models import Model
from db.ledger.workers import Stage, seen_since
from db.schema import failures, files, predictions, tag_scores
from db.schema import images as image_table
from producer.sources import references
from tagonce import from_settings, settings
from tests.fixtures.command import wait_until
from workers.inference import batching
from workers.options import Options
from workers.pipeline import Pipeline, Report


@dataclass
class Collection:
    """A folder, and a pipeline with a tiny model to tag it with."""

    folder: Path
    database: Database
    model: Model
    pipeline: Pipeline
    batches: list[int] = field(default_factory=list)
    """Number of images in each forward pass."""

    def tag(self) -> Report:
        """Tag all images of the folder as one chunk."""
        with self.database.write() as connection:
            ids = images.register(connection, list(references(str(self.folder))), self.model.id)
        return self.pipeline.run(ids)

    def scores(self, name: str) -> list[tuple[int, int]]:
        with self.database.read() as connection:
            query = (
                select(tag_scores.c.tag_id, tag_scores.c.score)
                .join(image_table, image_table.c.id == tag_scores.c.image_id)
                .where(image_table.c.uri.endswith(f"/{name}"))
            )
            return sorted(tuple(row) for row in connection.execute(query))


@pytest.fixture
def collection(
    database: Database, make_photos: Callable[..., list[Path]], jtp1_folder: Path, tmp_path: Path
) -> Collection:
    make_photos(10)
    spec, model = from_settings.find_and_register(database, settings.load(model=str(jtp1_folder)))
    pipeline = Pipeline(database, model, spec, Options(batch_size=4, device="cpu"))
    made = Collection(tmp_path / "photos", database, model, pipeline)
    launch = pipeline.inferencer.launch

    def counted(pixels: list) -> object:
        made.batches.append(len(pixels))
        return launch(pixels)

    pipeline.inferencer.launch = counted  # type: ignore[method-assign]
    return made


def test_copies_of_what_is_stored_are_not_inferred(collection: Collection) -> None:
    first = collection.tag()
    assert (first.done, collection.batches) == (10, [4, 4, 2])
    for number in range(10):
        shutil.copy(collection.folder / f"{number:05}.jpg", collection.folder / f"copy-{number}.jpg")
    second = collection.tag()
    assert (second.images, second.done, second.failed) == (10, 10, 0)
    assert collection.batches == [4, 4, 2]
    for number in range(10):
        assert collection.scores(f"copy-{number}.jpg") == collection.scores(f"{number:05}.jpg") != []
    with collection.database.read() as connection:
        sizes = connection.execute(select(files.c.width, files.c.height, files.c.format)).all()
        assert set(sizes) == {(48, 40, "jpeg")}


def test_copies_in_one_chunk_are_inferred_once_and_batches_are_full(collection: Collection) -> None:
    """In any order: images fill the batches, even with duplicates and broken files between them."""
    for number in range(0, 10, 2):
        for copy in "abc":
            shutil.copy(collection.folder / f"{number:05}.jpg", collection.folder / f"{number:05}-{copy}.jpg")
    done = collection.tag()
    assert (done.done, done.failed) == (25, 0)
    assert collection.batches == [4, 4, 2]
    for number in range(0, 10, 2):
        for copy in "abc":
            assert collection.scores(f"{number:05}-{copy}.jpg") == collection.scores(f"{number:05}.jpg") != []
    with collection.database.read() as connection:
        ((worker, work),) = seen_since(connection, collection.model.id, collection.pipeline.worker.started_at)
        assert worker == collection.pipeline.worker
        assert run_progress.progress(connection, collection.model.id).done == 25
    assert work.duplicates == 15
    assert (work.images[Stage.FETCH], work.images[Stage.DECODE], work.images[Stage.INFER]) == (25, 10, 10)
    assert 0 < work.device_busy <= 1


def test_a_copy_of_a_broken_file_fails_like_it(collection: Collection) -> None:
    broken = collection.folder / "00003.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    shutil.copy(broken, collection.folder / "copy.jpg")
    (collection.folder / "gone.jpg").symlink_to(collection.folder / "nowhere.jpg")
    done = collection.tag()
    assert (done.done, done.failed) == (9, 2)
    with collection.database.read() as connection:
        rows = connection.execute(select(failures.c.reason, failures.c.detail)).all()
        assert len(rows) == 2
        assert len(set(rows)) == 1
        assert rows[0].reason == Reason.CORRUPT
        assert len(set(connection.scalars(select(predictions.c.image_id)))) == 9


def test_an_image_that_gives_nan_fails_with_its_copies_and_no_other(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker continues. Otherwise it would end because of this image, and so would the next worker."""
    shutil.copy(collection.folder / "00003.jpg", collection.folder / "copy.jpg")
    inferencer = collection.pipeline.inferencer
    network = inferencer._network
    decoded = collection.pipeline.stages._decoder.decode((collection.folder / "00003.jpg").read_bytes())
    marked = inferencer._preprocess.normalise(inferencer._collate([decoded], 1))[0]

    def nan_for_one_image(pixels: torch.Tensor) -> torch.Tensor:
        found = network(pixels)
        found[(pixels == marked).flatten(1).all(1)] = torch.nan
        return found

    monkeypatch.setattr(inferencer, "_network", nan_for_one_image)
    done = collection.tag()
    assert (done.done, done.failed) == (9, 2)
    with collection.database.read() as connection:
        rows = connection.execute(select(image_table.c.uri, failures.c.reason, failures.c.detail).join(failures)).all()
    assert sorted(row.uri.rpartition("/")[2] for row in rows) == ["00003.jpg", "copy.jpg"]
    assert {row.reason for row in rows} == {Reason.NAN}
    assert {row.detail for row in rows} == {"the model gives NaN for it on cpu, in fp32 too"}


def test_a_file_that_became_another_is_inferred_again(collection: Collection) -> None:
    """The stored result of its old bytes, which another file still has, is not used."""
    collection.tag()
    one, other = collection.folder / "00001.jpg", collection.folder / "00002.jpg"
    before = collection.scores("00002.jpg")
    other.write_bytes(one.read_bytes())
    again = collection.tag()
    assert again.done == 1
    assert collection.batches == [4, 4, 2]
    assert collection.scores("00002.jpg") == collection.scores("00001.jpg") != before


def test_a_batch_holds_images_of_several_chunks(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk is written as soon as its own images are done."""
    monkeypatch.setattr(batching, "FILL_SECONDS", 60.0)
    collection.pipeline.inferencer.batch_size = 10
    with collection.database.write() as connection:
        ids = images.register(connection, list(references(str(collection.folder))), collection.model.id)
    pipeline, go = collection.pipeline, threading.Event()
    with ThreadPoolExecutor(3) as pool:
        pool.submit(pipeline.device.call, go.wait)  # or it would begin before it expects the second chunk
        reports = pool.map(pipeline.run, (ids[:7], ids[7:]))
        wait_until(lambda: len(pipeline.device._requests) == len(ids), every=0.01)
        go.set()
    assert [report.done for report in reports] == [7, 3]
    assert collection.batches == [10]
