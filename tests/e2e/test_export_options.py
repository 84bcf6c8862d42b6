"""Every option of `tagonce export` writes, byte for byte, what a plain loop over the model's own probabilities writes.

The probabilities come from the model itself, without database or worker (`tests.e2e.reference`), the captions from
`tests.fixtures.straight`, JSON and CSV from Python's own modules.
"""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from db.errors import SettingsError
from db.export.options import CaptionOptions, Placement, Sort, Underscores
from db.ledger.models import Tag
from db.names.uris import file_path
from tagonce.cli import app
from tests.e2e.ledger import NOT_STORED, Ledger
from tests.fixtures.command import Outcome, start_forked
from tests.fixtures.straight import straight_caption, straight_items
from workers.models.registry import find_model


@dataclass(frozen=True)
class Tagged:
    """Photographs that `tagonce tag` has tagged, and what the model says of them."""

    url: str
    tags: Sequence[Tag]
    threshold: str
    scores: dict[str, dict[int, int]]
    """By uri, in order of registration, and by tag id: floor(p * 10000), from the floor on."""
    sizes: dict[str, tuple[int, int]]

    def thresholds(self) -> list[int]:
        return [round(float(self.threshold) * 10_000)] * len(self.tags)

    def captions(
        self, options: CaptionOptions, thresholds: Sequence[int] | None = None, **more: Any
    ) -> Iterator[tuple[str, str]]:
        """The plain loop: uri and caption of every image."""
        for uri, scores in self.scores.items():
            yield uri, straight_caption(uri, scores, self.tags, thresholds or self.thresholds(), options, **more)

    def lines(self, options: CaptionOptions, thresholds: Sequence[int] | None = None) -> str:
        """The plain loop as JSON lines."""
        limits = thresholds or self.thresholds()
        text = ""
        for uri, caption in self.captions(options, limits):
            ranked = sorted(self.scores[uri].items(), key=lambda pair: (-pair[1], pair[0]))
            row = {
                "uri": uri,
                "width": self.sizes[uri][0],
                "height": self.sizes[uri][1],
                "caption": caption,
                "tags": {self.tags[tag].name: score / 10_000 for tag, score in ranked if score >= limits[tag]},
            }
            text += json.dumps(row, ensure_ascii=False) + "\n"
        return text

    def export(self, *arguments: str, at: Sequence[str] | None = None) -> str:
        """Run it in this process; what it prints on standard output."""
        policy = ["--threshold", self.threshold] if at is None else at
        done = CliRunner().invoke(app, ["export", *policy, *arguments, "--database", self.url], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout


def tag(folder: Path, photos: Path, model: str | Path, threshold: str) -> Tagged:
    url = f"sqlite:///{folder / 'tags.db'}"
    arguments = ["tag", str(photos), "--model", str(model), "--database", url, "--floor", "0.01"]
    done = start_forked(arguments, folder, os.environ | {"HF_HUB_OFFLINE": "1"}, folder / "tag.log")
    assert done.wait() == 0, done.words()
    tags = find_model(str(model)).tags
    # As they are stored. That they are what the model says is for test_tag.py and test_demo_model.py to show: computed
    # here, one could differ in the last bit of a float32, and with it in the last digit, by where it lies in memory.
    ledger = Ledger(url)
    stored = ledger.scores(len(tags))
    scores = {
        uri: {tag_id: score for tag_id, score in enumerate(stored[uri].tolist()) if score != NOT_STORED}
        for uri in ledger.uris()
        if uri in stored
    }
    sizes = {}
    for uri in scores:
        with Image.open(file_path(uri)) as image:
            sizes[uri] = image.size
    return Tagged(url, tags, threshold, scores, sizes)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, skimage_photos: Path) -> Tagged:
    """The photographs of scikit-image with the demo model."""
    return tag(tmp_path_factory.mktemp("demo"), skimage_photos, "demo", "0.05")


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory, skimage_photos: Path, wd_folder: Path) -> Tagged:
    """The same with a small random model that has ratings, qualities and a character, `solo`."""
    folder = tmp_path_factory.mktemp("rated")
    model = shutil.copytree(wd_folder, folder / "tiny-graded")
    listed = (model / "selected_tags.csv").read_text(encoding="utf-8")
    listed = re.sub(r",(hi_res|absurd_res|sketch|comic),0,", r",\1,quality,", listed)
    (model / "selected_tags.csv").write_text(listed, encoding="utf-8")
    return tag(folder, skimage_photos, model, "0.3")


OPTIONS: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["--separator", " | "], {"separator": " | "}),
    (["--underscores", "keep"], {"underscores": Underscores.KEEP}),
    (
        ["--underscores", "kohya", "--replace", "cat=c_t"],
        {"underscores": Underscores.KOHYA, "replace": (("cat", "c_t"),)},
    ),
    (["--escape", "--replace", "cat=cat_(animal)"], {"escape": True, "replace": (("cat", "cat_(animal)"),)}),
    (["--exclude", "cat", "--exclude", "*_cat"], {"exclude": ("cat", "*_cat")}),
    (["--exclude", "game equipment"], {"exclude": ("game equipment",)}),
    (["--replace", "cat=kitty", "--replace", "feline=kitty"], {"replace": (("cat", "kitty"), ("feline", "kitty"))}),
    (["--replace", "animal="], {"replace": (("animal", ""),)}),
    (["--first", "mammal", "--first", "cat"], {"first": ("mammal", "cat")}),
    (["--prepend", "my_style", "--append", "end"], {"prepend": ("my_style",), "append": ("end",)}),
    (["--category-order", "group"], {"category_order": ("group",)}),
    (["--category-prefix"], {"category_prefix": True}),
    (["--max-tags", "3"], {"max_tags": 3}),
    (["--sort", "name"], {"sort": Sort.NAME}),
    (["--sort", "list"], {"sort": Sort.LIST}),
    (["--sort", "shuffle", "--seed", "42"], {"sort": Sort.SHUFFLE, "seed": 42}),
    (["--score-suffix"], {"score_suffix": True}),
    (
        [
            "--max-tags",
            "4",
            "--sort",
            "name",
            "--first",
            "mammal",
            "--score-suffix",
            "--prepend",
            "x",
            "--exclude",
            "*i*",
        ],
        {
            "max_tags": 4,
            "sort": Sort.NAME,
            "first": ("mammal",),
            "score_suffix": True,
            "prepend": ("x",),
            "exclude": ("*i*",),
        },
    ),
]

RATED_OPTIONS: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["--rating", "first"], {"rating": Placement.FIRST}),
    (["--rating", "last"], {"rating": Placement.LAST}),
    (["--rating", "none"], {"rating": Placement.NONE}),
    (["--rating", "threshold"], {"rating": Placement.THRESHOLD}),
    (
        ["--rating", "first", "--max-tags", "4", "--sort", "shuffle", "--first", "horn"],
        {"rating": Placement.FIRST, "max_tags": 4, "sort": Sort.SHUFFLE, "first": ("horn",)},
    ),
    (
        ["--expand-characters", "--replace", "solo=hero_(the_epic)", "--replace", "horn=hero"],
        {"expand_characters": True, "replace": (("solo", "hero_(the_epic)"), ("horn", "hero"))},
    ),
    (
        ["--expand-characters", "--replace", "solo=hero_(the_epic)", "--exclude", "hero", "--category-prefix"],
        {
            "expand_characters": True,
            "replace": (("solo", "hero_(the_epic)"),),
            "exclude": ("hero",),
            "category_prefix": True,
        },
    ),
    (["--category-order", "character,rating", "--rating", "threshold"],
     {"category_order": ("character", "rating"), "rating": Placement.THRESHOLD}),
    (["--quality", "first"], {"quality": Placement.FIRST}),
    (["--quality", "last"], {"quality": Placement.LAST}),
    (["--quality", "none"], {"quality": Placement.NONE}),
    (["--quality", "threshold"], {"quality": Placement.THRESHOLD}),
    (["--rating", "first", "--quality", "first", "--max-tags", "2"],
     {"rating": Placement.FIRST, "quality": Placement.FIRST, "max_tags": 2}),
    (["--rating", "last", "--quality", "last", "--score-suffix"],
     {"rating": Placement.LAST, "quality": Placement.LAST, "score_suffix": True}),
    (["--rating", "last", "--quality", "first"], {"rating": Placement.LAST, "quality": Placement.FIRST}),
    (["--escape", "--replace", "solo=x_(y)"], {"escape": True, "replace": (("solo", "x_(y)"),)}),
]  # fmt: skip


def as_written(tagged: Tagged, folder: Path, arguments: list[str], options: CaptionOptions) -> None:
    """JSON lines and sidecars of all images are those of the plain loop."""
    tagged.export(*arguments, "--format", "jsonl", "--out", str(folder / "all.jsonl"))
    assert (folder / "all.jsonl").read_bytes().decode() == tagged.lines(options)
    tagged.export(*arguments, "--out", str(folder / "txt"))
    written = {path.name: path.read_bytes().decode() for path in (folder / "txt").glob("*.txt")}
    assert written == {f"{Path(uri).stem}.txt": caption + "\n" for uri, caption in tagged.captions(options)}


@pytest.mark.parametrize(("arguments", "options"), OPTIONS)
def test_an_option_with_the_demo_model(
    demo: Tagged, tmp_path: Path, arguments: list[str], options: dict[str, Any]
) -> None:
    as_written(demo, tmp_path, arguments, CaptionOptions(**options))


@pytest.mark.parametrize(("arguments", "options"), RATED_OPTIONS)
def test_an_option_with_ratings_qualities_and_characters(
    rated: Tagged, tmp_path: Path, arguments: list[str], options: dict[str, Any]
) -> None:
    as_written(rated, tmp_path, arguments, CaptionOptions(**options))


@pytest.mark.parametrize("name", ["demo", "rated"])
def test_no_option_of_these_tests_is_without_effect(name: str, request: pytest.FixtureRequest) -> None:
    """Else they would prove nothing: without any single one of them the captions are others."""
    tagged: Tagged = request.getfixturevalue(name)
    for _, options in {"demo": OPTIONS, "rated": RATED_OPTIONS}[name]:
        captions = list(tagged.captions(CaptionOptions(**options)))
        for option, value in options.items():
            without = {other: value for other, value in options.items() if other != option}
            changes = value is not Placement.NONE  # the default
            assert (list(tagged.captions(CaptionOptions(**without))) != captions) == changes, (option, options)


def test_a_model_without_ratings_and_qualities_has_none_to_place(demo: Tagged) -> None:
    placed = demo.export("--rating", "first", "--quality", "last", "--format", "jsonl")
    assert placed == demo.lines(CaptionOptions())


def test_aliases_come_from_a_file_and_the_command_line_wins(demo: Tagged, tmp_path: Path) -> None:
    (tmp_path / "aliases.csv").write_text("cat,kitty\nmammal,beast\n")
    arguments = ["--replace-from", str(tmp_path / "aliases.csv"), "--replace", "cat=felis"]
    options = CaptionOptions(replace=(("cat", "felis"), ("mammal", "beast")))
    as_written(demo, tmp_path, arguments, options)


def test_thresholds_by_category_and_tag(demo: Tagged) -> None:
    """The options beside --threshold win over it, those for a tag over those for its category."""
    limits = [
        {"cat": 9000}.get(one.name, 10_001 if one.category == "group" else 500 if one.category == "leaf" else 2000)
        for one in demo.tags
    ]
    at = ["-t", "0.2", "--category-threshold", "group=off", "--category-threshold", "leaf=0.05"]
    at += ["--tag-threshold", "cat=0.9"]
    assert demo.export("--format", "jsonl", at=at) == demo.lines(CaptionOptions(), limits)


@pytest.mark.parametrize("name", ["demo", "rated"])
def test_a_table_of_tags(name: str, request: pytest.FixtureRequest) -> None:
    """CSV with the model's own names; ratings and qualities are tags like others there."""
    tagged: Tagged = request.getfixturevalue(name)
    options = CaptionOptions(underscores=Underscores.KEEP, rating=Placement.THRESHOLD, quality=Placement.THRESHOLD)
    expected = io.StringIO()
    writer = csv.writer(expected, lineterminator="\n")
    writer.writerow(["uri", "tag", "category", "probability"])
    for uri, scores in tagged.scores.items():
        for item in straight_items(uri, scores, tagged.tags, tagged.thresholds(), options):
            writer.writerow([uri, item.text, item.category, item.score / 10_000])
    assert tagged.export("--format", "csv") == expected.getvalue()


def test_kohyas_metadata(demo: Tagged) -> None:
    expected = [
        f"{json.dumps(file_path(uri))}: {json.dumps({'tags': caption, 'image_size': list(demo.sizes[uri])})}"
        for uri, caption in demo.captions(CaptionOptions())
    ]
    assert demo.export("--format", "kohya") == "{\n" + ",\n".join(expected) + "\n}\n"


def test_hydrus_sidecars(rated: Tagged, tmp_path: Path) -> None:
    rated.export("--format", "hydrus", "--out", str(tmp_path))
    options = CaptionOptions(
        separator="\n", category_prefix=True, rating=Placement.THRESHOLD, quality=Placement.THRESHOLD
    )
    written = {path.name: path.read_bytes().decode() for path in tmp_path.glob("*.txt")}
    assert written == {f"{Path(uri).name}.txt": caption + "\n" for uri, caption in rated.captions(options)}
    assert any("rating:general\n" in text and "quality:" in text for text in written.values())


def test_the_console_script_does_the_same(
    demo: Tagged, tagonce: Callable[..., Outcome], tagonce_script: Callable[..., Outcome], tmp_path: Path
) -> None:
    arguments = ["-t", "0.05", "--sort", "name", "--score-suffix", "--database", demo.url]
    options = CaptionOptions(sort=Sort.NAME, score_suffix=True)
    streamed = tagonce_script("export", *arguments, "--format", "jsonl")
    assert streamed.code == 0, streamed.err
    assert streamed.out == demo.lines(options)
    made_by = json.loads(streamed.err.splitlines()[0])
    assert (made_by["model"]["name"], made_by["options"]) == ("demo", {"sort": "name", "score_suffix": True})
    assert tagonce("export", *arguments, "--format", "jsonl", "--out", "-").out == streamed.out
    folder = Path(file_path(min(demo.scores))).parent
    planned = tagonce("export", *arguments, "--out", "txt", "--dry-run", "--root", folder)
    assert planned.code == 0, planned.err
    assert f"It would be: {len(demo.scores)} new ({tmp_path / 'txt'}/" in planned.err
    assert not (tmp_path / "txt").exists()
    written = tagonce("export", *arguments, "--out", "txt", "--frequencies", "counts.csv")
    assert written.code == 0, written.err
    assert f"demo at 0.05: {len(demo.scores)} captions written to {tmp_path / 'txt'}." in written.err
    texts = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "txt").glob("*.txt")}
    assert texts == {f"{Path(uri).stem}.txt": caption + "\n" for uri, caption in demo.captions(options)}
    with (tmp_path / "counts.csv").open(newline="") as file:
        counted = {row["tag"]: int(row["images"]) for row in csv.DictReader(file)}
    plain = [caption.split(", ") for _, caption in demo.captions(CaptionOptions()) if caption]
    assert counted == {name: sum(name in names for names in plain) for names in plain for name in names}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--overwrite", "--merge", "--out", "x"], "--overwrite and --merge contradict each other"),
        (["--format", "jsonl", "--merge"], "--merge is for sidecars"),
        (["--extension", ".png", "--overwrite"], "--extension .png is that of images"),
        (["--extension", ".tags.JPG", "--out", "x"], "is that of images"),
        (["--out", "-"], "--format txt cannot go to standard output"),
        (["--format", "parquet", "--out", "-"], "--format parquet cannot go to standard output"),
        (["--out", ""], "--out is empty"),
        (["--root", "/"], "--root needs --out and a format with sidecars"),
        (["--root", "/", "--format", "csv", "--out", "x"], "--root needs --out and a format with sidecars"),
        (["--root", "/nowhere", "--out", "x"], "No image is registered under '/nowhere'"),
        (["--format", "parquet"], "is not text: name a file with --out"),
        (["--format", "csv", "--escape"], "does not take --escape"),
        (["--replace", "cat", "--out", "x"], "--replace is OLD=NEW"),
        (["--extension", "txt", "--out", "x"], "--extension begins with a dot"),
        (["--category-order", "grup", "--out", "x"], "did you mean 'group'"),
    ],
)
def test_what_does_not_fit_together_is_said(demo: Tagged, arguments: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)):
        demo.export(*arguments)
