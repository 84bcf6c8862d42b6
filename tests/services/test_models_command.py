"""`tagonce models`: the list, the size of stored rows, and the files of a model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from db.database import Database
from db.ledger import models
from db.ledger.models import Model, Tag
from db.policy import model_default
from db.policy.policies import Policy
from tests.fixtures.checkpoints import JTP_SIZE, RATINGS, TAGS
from tests.fixtures.command import Outcome
from tests.services.test_thresholds import store

Run = Callable[..., Outcome]


# ── the list ──


def test_known_models_and_families_with_their_licences(invoke: Run) -> None:
    found = invoke("models", "--json").json
    assert found["stored"] == []
    known = {one["name"]: one for one in found["known_models"]}
    assert found["known"] == list(known)
    assert known["jtp-1"] == {
        "name": "jtp-1",
        "tags": 9083,
        "size": 384,
        "weight_bytes": 4 * 438_698_299,
        "threshold": 0.2,
        "licence": "Apache-2.0",
        "description": "Joint Tagger Project PILOT: furry art, e621 tags, SO400M at 384 px",
    }
    assert known["demo"]["licence"] is None
    assert {"jtp": "Apache-2.0", "camie": "GPL-3.0", "onnx": None, "demo": None}.items() <= {
        one["name"]: one["licence"] for one in found["families"]
    }.items()
    shown = invoke("models").out
    assert "Known by name" in shown
    assert "wd-eva02-large-v3" in shown


@pytest.fixture
def large(database: Database) -> Model:
    """A model whose rows are large."""
    with database.write() as connection:
        return models.register(
            connection,
            name="large",
            weights_sha256="l",
            spec={},
            tag_list=[Tag(f"tag_{number}") for number in range(20_000)],
            floor=100,
            default_threshold=3500,
        )


def test_what_a_floor_costs_is_measured_on_stored_rows(
    database: Database,
    database_url: str,
    model: Model,
    large: Model,
    registered: Callable[..., list[int]],
    invoke: Run,
    doctor: Callable[..., list[dict[str, str]]],
) -> None:
    """PostgreSQL has two bytes for each of these tag ids; SQLite has three in a model with more than 16,384 tags."""
    ids = registered(2)
    many = [{tag_id: 100 + tag_id % 1200 for tag_id in range(2000)}, dict.fromkeys(range(500), 5000)]
    with database.write() as connection:
        store(connection, model, ids, [{1: 100, 2: 499, 3: 500, 4: 1000}, {5: 9000}])
        store(connection, large, ids, many)
        model_default.save(connection, model, Policy(tags={"tag_03": 500}), is_new=True)
    found = {one["name"]: one for one in invoke("models", "--json", TAGONCE_DATABASE_URL=database_url).json["stored"]}
    assert found["tiny"]["bytes_per_image"] == {"0.01": 10, "0.05": 6, "0.1": 4}
    assert (found["tiny"]["default_policy"], found["large"]["default_policy"]) == ("model-default@1", None)
    a_tag = 5 if database_url.startswith("sqlite") else 4
    expected = {}
    for floor in (100, 500, 1000):
        expected[floor] = a_tag * sum(score >= floor for row in many for score in row.values()) / 2
    assert found["large"]["bytes_per_image"] == {
        "0.01": expected[100], "0.05": expected[500], "0.1": expected[1000],
    }  # fmt: skip
    sentence = (
        f"A million images of large take {expected[100] / 1000:.1f} GB at the floor 0.01, "
        f"{expected[500] / 1000:.1f} GB at 0.05, {expected[1000] / 1000:.1f} GB at 0.1."
    )
    assert (found["tiny"]["warning"], found["large"]["warning"]) == ("", sentence)
    shown = invoke("models", TAGONCE_DATABASE_URL=database_url).out
    assert sentence in shown
    assert "model-default@1" in shown
    rows = [one for one in doctor(TAGONCE_DATABASE_URL=database_url) if one["check"] == "rows"]
    assert [one["advice"] for one in rows] == ["", sentence]
    assert rows[0]["message"].endswith("bytes an image by floor: 10 at 0.01, 6 at 0.05, 4 at 0.1 (2 drawn at random)")


# ── show ──


def test_show_says_what_a_folder_holds(wd_folder: Path, invoke: Run) -> None:
    found = invoke("models", "show", wd_folder, "--json").json
    assert (found["family"], found["licence"], found["tags"]) == ("wd", "Apache-2.0", len(RATINGS) + len(TAGS))
    assert found["recognised_by"].endswith("a selected_tags.csv beginning with the ratings")
    assert set(found["files"]) == {"config.json", "model.safetensors", "selected_tags.csv"}
    assert found["files"]["model.safetensors"] == (wd_folder / "model.safetensors").stat().st_size
    assert found["categories"] == {"rating": 4, "general": len(TAGS) - 1, "character": 1}
    assert found["policy"] == {"categories": {"rating": 0.0}, "best_of": ["rating"]}
    tensors = load_file(wd_folder / "model.safetensors")
    assert found["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert found["preprocessing"] == [
        "transparent pixels are put over white",
        "padded to a square with white, centred",
        "resized (bicubic): the short side to 64",
        "from 0..255 to 0..1, minus 0.5, divided by 0.5",
        "channels from RGB to BGR",
    ]
    assert "padded to a square with white" in invoke("models", "show", wd_folder).out


def test_show_names_what_model_json_states(jtp2_folder: Path, invoke: Run) -> None:
    found = invoke("models", "show", jtp2_folder, "--json").json
    assert found["stated_in_model_json"] == ["architecture", "model_args", "size"]
    assert found["preprocessing"][1:3] == [
        f"resized (lanczos) to fit into {JTP_SIZE} x {JTP_SIZE}, keeping the aspect ratio",
        "centred; the rest is 0 after normalising",
    ]


def test_show_downloads_nothing(invoke: Run) -> None:
    found = invoke("models", "show", "jtp-2")
    assert found.code == 0
    assert "not downloaded yet" in found.out
    missing = invoke("models", "show", "no-such-model")
    assert missing.code == 1
    assert "There is no model 'no-such-model'" in missing.err


# ── convert ──


class Module(torch.nn.Module):
    """A class that a pickle of a whole module refers to."""


def state() -> dict[str, torch.Tensor]:
    """Two tensors that share memory, and one that is not contiguous."""
    one = torch.arange(6.0).reshape(2, 3)
    return {"head.weight": one, "tied.weight": one, "turned": torch.arange(6.0).reshape(2, 3).T}


@pytest.mark.parametrize("whole", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_tensors_keep_their_names_and_values(
    whole: Callable[[Any], Any], is_zip: bool, tmp_path: Path, invoke: Run
) -> None:
    torch.save(whole(state()), tmp_path / "model.pth", _use_new_zipfile_serialization=is_zip)
    done = invoke("models", "convert", "model.pth", "model.safetensors")
    assert done.code == 0, done.err
    assert "3 tensors, 18 weights." in done.err
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == state().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state().items())


def test_values_that_are_no_tensors_are_named(tmp_path: Path, invoke: Run) -> None:
    torch.save(state() | {"step": 7}, tmp_path / "model.pth")
    assert "left out: step." in invoke("models", "convert", "model.pth", "model.safetensors").err


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_says_what(is_zip: bool, tmp_path: Path, invoke: Run) -> None:
    torch.save(Module(), tmp_path / "model.pth", _use_new_zipfile_serialization=is_zip)
    done = invoke("models", "convert", "model.pth", "model.safetensors")
    assert done.code == 1
    assert "holds more than tensors: opening it would run" in done.err
    assert f"{Module.__module__}.Module" in done.err
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no checkpoint", "is not a checkpoint of torch, or is incomplete"),
        (b"", "is not a checkpoint of torch, or is incomplete"),
        ({"epoch": 3}, "has no tensors by name, there or under model or state_dict. It has the keys epoch."),
        ([torch.zeros(2)], "has no tensors by name"),
        (None, "cannot be read: No such file or directory."),
    ],
)
def test_a_file_without_named_tensors_is_refused(content: Any, sentence: str, tmp_path: Path, invoke: Run) -> None:
    if isinstance(content, bytes):
        (tmp_path / "model.pth").write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / "model.pth")
    done = invoke("models", "convert", "model.pth", "model.safetensors")
    assert done.code == 1
    assert sentence in done.err
    assert not (tmp_path / "model.safetensors").exists()


def test_only_a_new_safetensors_is_written(tmp_path: Path, invoke: Run) -> None:
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    for name, sentence in (("model.bin", "must end with .safetensors"), ("there.safetensors", "exists already")):
        done = invoke("models", "convert", "model.pth", name)
        assert (done.code, sentence in done.err) == (2, True)
    assert (tmp_path / "there.safetensors").read_bytes() == b"mine"


# ── check ──


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Wider than tall, with transparency."""
    levels = np.random.default_rng(5).integers(0, 256, (6, 11, 4), dtype=np.uint8)
    path = tmp_path / "a b.png"
    Image.fromarray(levels).resize((77, 41), Image.Resampling.BICUBIC).save(path)
    return path


def test_check_shows_tags_and_what_the_network_sees(
    wd_folder: Path, picture: Path, tmp_path: Path, invoke: Run
) -> None:
    """WD: over white, in a white square, resized. Pillow alone does the same here."""
    options = ("--json", "--top", "5", "--device", "cpu", "--out", "seen")
    found = invoke("models", "check", wd_folder, picture, *options).json
    predicted = invoke("predict", picture, "--model", wd_folder, "--json", "--device", "cpu").json["probabilities"]
    assert found["tags"] == dict(list(predicted.items())[:5])
    original = Image.open(picture)
    square = Image.new("RGBA", (77, 77), "white")
    square.paste(Image.alpha_composite(Image.new("RGBA", original.size, "white"), original), (0, 18))
    expected = np.asarray(square.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    seen = Image.open(tmp_path / found["picture"])
    assert (seen.format, seen.mode, Path(found["picture"]).parent.name) == ("PNG", "RGB", "seen")
    assert np.abs(np.asarray(seen).astype(int) - expected).max() <= 1
    assert "probability" in invoke("models", "check", wd_folder, picture, "--device", "cpu").out


def test_check_shows_the_padding_of_jtp_as_grey(jtp2_folder: Path, picture: Path, tmp_path: Path, invoke: Run) -> None:
    """It is 0 after normalising, which is the mean."""
    done = invoke("models", "check", jtp2_folder, picture, "--device", "cpu")
    assert done.code == 0, done.err
    seen = np.asarray(Image.open(tmp_path / "a b.png.seen.png"))
    assert seen.shape == (JTP_SIZE, JTP_SIZE, 3)
    assert set(np.unique(seen[:20])) <= {127, 128}
    assert seen[JTP_SIZE // 2].std() > 10


def test_check_names_a_picture_that_cannot_be_read(wd_folder: Path, tmp_path: Path, invoke: Run) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    done = invoke("models", "check", wd_folder, "broken.png", "--device", "cpu")
    assert done.code == 1
    assert "broken.png: " in done.err
    assert not list(tmp_path.glob("*.seen.png"))
