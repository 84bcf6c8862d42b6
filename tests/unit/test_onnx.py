"""ONNX files: which are read and which are refused, and ONNX Runtime beside torch."""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import huggingface_hub
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from db.errors import ImageError, ModelError, SettingsError
from tests.fixtures.onnx_models import SIDE, Tiny, write_csv, write_json, write_onnx
from workers.images.decode import Decoded, Decoder
from workers.inference.infer import Inferencer
from workers.inference.network import load_network
from workers.inference.onnx_network import providers
from workers.inference.self_test import SelfTest
from workers.models.folder import read_folder
from workers.models.registry import find_model, in_cache
from workers.models.spec import ModelSpec
from workers.options import Options

NAMES = ("wolf", "fox", "cat", "dog")
TINY = Tiny(len(NAMES), logits="logits")
STATED = {
    "channel_order": "RGB",
    "scale": "0..1",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "resize": "timm",
    "crop_mode": "squash",
    "filter": "bicubic",
    "background": None,
    "activation": "sigmoid",
}
"""`model.json` of a file of no known family."""
FULL_PRECISION, SMALL_DIFFERENCE = 1e-4, 1e-3


def write_model(folder: Path, tiny: Tiny = TINY, *, external: str | None = None, **stated: object) -> Path:
    """A model of no known family, with `model.json`."""
    write_onnx(folder, tiny, external=external)
    write_json(folder / "tags.json", {name: index for index, name in enumerate(NAMES)})
    write_json(folder / "model.json", STATED | stated)
    return folder


def inferencer(spec: ModelSpec, **options: object) -> Inferencer:
    return Inferencer(spec, Options(**{"batch_size": 4, "device": "cpu", "torch_threads": 1} | options), floor=0)


@pytest.fixture(scope="module")
def images() -> list[Decoded]:
    random = np.random.default_rng(1)
    return [Decoded(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8), SIDE, SIDE, "png") for _ in range(5)]


def expected(tiny: Tiny, images: list[Decoded]) -> np.ndarray:
    return np.stack([tiny.run(image.pixels.transpose(2, 0, 1) / 127.5 - 1) for image in images])


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is not an ONNX file, or is incomplete"),
            (b"<html>not found</html>", "is not an ONNX file, or is incomplete"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
            (TINY.model().SerializeToString()[:-100], "is not an ONNX file, or is incomplete"),
            (b"\x08\x09", "is not an ONNX file, or is incomplete"),
        ],
    )
    def test_a_file_that_is_not_a_whole_onnx_file_is_refused(
        self, tmp_path: Path, content: bytes, message: str
    ) -> None:
        (write_model(tmp_path) / "model.onnx").write_bytes(content)
        with pytest.raises(ModelError, match=message):
            read_folder(tmp_path)

    def test_weights_beside_the_file_have_to_be_there_and_whole(self, tmp_path: Path) -> None:
        data = write_model(tmp_path, external="model.onnx.data") / "model.onnx.data"
        assert read_folder(tmp_path).external == (data,)
        whole = data.read_bytes()
        data.write_bytes(whole[:-1])
        with pytest.raises(ModelError, match=f"has {len(whole) - 1:,} bytes and should have {len(whole):,}"):
            read_folder(tmp_path)
        data.unlink()
        with pytest.raises(ModelError, match=r"keeps its weights in model\.onnx\.data, which is missing"):
            read_folder(tmp_path)

    @pytest.mark.parametrize("location", ["../model.onnx.data", "/etc/passwd", "a/b", "a\\b"])
    def test_weights_in_another_folder_are_refused(self, tmp_path: Path, location: str) -> None:
        path = write_model(tmp_path / "model", external="model.onnx.data") / "model.onnx"
        model = onnx.load(path, load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = location
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match="Only a file in the same folder is read"):
            read_folder(tmp_path / "model")

    def test_weights_inside_a_node_are_found_too(self, tmp_path: Path) -> None:
        """A constant of a branch, which no list of initializers has."""
        path = write_model(tmp_path) / "model.onnx"
        model = onnx.load(path)
        value = helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0])
        value.ClearField("float_data")
        value.data_location = TensorProto.EXTERNAL
        value.external_data.add(key="location", value="branch.data")
        branch = helper.make_graph([helper.make_node("Constant", [], ["c"], value=value)], "branch", [], [])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=r"keeps its weights in branch\.data, which is missing"):
            read_folder(tmp_path)

    def test_the_hash_covers_the_weights_beside_the_file(self, tmp_path: Path) -> None:
        write_model(tmp_path, external="model.onnx.data")
        spec = read_folder(tmp_path)
        before = spec.weights_sha256()
        data = bytearray(spec.external[0].read_bytes())
        data[0] ^= 1
        spec.external[0].write_bytes(data)
        with pytest.raises(ModelError, match="changed while it was in use"):
            inferencer(spec)
        assert read_folder(tmp_path).weights_sha256() != before

    def test_a_snapshot_of_the_hub_is_read_through_its_links(self, tmp_path: Path, images: list[Decoded]) -> None:
        """Its files are links to others, which have hashes as names."""
        write_model(tmp_path / "snapshot", external="model.onnx.data")
        (tmp_path / "blobs").mkdir()
        for number, name in enumerate(("model.onnx", "model.onnx.data")):
            linked = tmp_path / "snapshot" / name
            linked.rename(tmp_path / "blobs" / str(number))
            linked.symlink_to(f"../blobs/{number}")
        found = inferencer(read_folder(tmp_path / "snapshot")).probabilities(images)
        np.testing.assert_allclose(found, expected(TINY, images), atol=1e-5)


class TestFolders:
    def test_a_repository_of_the_hub_without_other_weights_comes_from_the_cache(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        repo, commit = tmp_path / "models--someone--tagger", "0" * 40
        name = "hf-hub:someone/tagger"
        assert not in_cache(name, cache_dir=tmp_path)
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / "main").write_text(commit)
        write_model(repo / "snapshots" / commit)
        assert in_cache(name, cache_dir=tmp_path)
        spec = find_model(name, cache_dir=tmp_path)
        assert (spec.name, spec.engine) == (name, "onnx")

    def test_an_unknown_family_lacks_keys_that_are_named(self, tmp_path: Path) -> None:
        write_model(tmp_path, Tiny(len(NAMES), logits="logits", side="side"))
        (tmp_path / "model.json").write_text('{"scale": "0..1", "resize": "fit", "mean": [0, 0, 0]}')
        with pytest.raises(
            ModelError, match=r"lacks: channel_order, std, filter, background, activation, size, fill\.$"
        ):
            read_folder(tmp_path)

    def test_a_layout_that_the_input_does_not_show_has_to_be_stated(
        self, tmp_path: Path, images: list[Decoded]
    ) -> None:
        write_model(tmp_path, size=SIDE)
        model = onnx.load(tmp_path / "model.onnx")
        for dimension in model.graph.input[0].type.tensor_type.shape.dim:
            dimension.dim_param = "any"
        onnx.save_model(model, tmp_path / "model.onnx")
        with pytest.raises(ModelError, match=r"lacks: layout\.$"):
            read_folder(tmp_path)
        write_model(tmp_path, size=SIDE, layout="NCHW")
        onnx.save_model(model, tmp_path / "model.onnx")
        found = inferencer(read_folder(tmp_path)).probabilities(images)
        np.testing.assert_allclose(found, expected(TINY, images), atol=1e-5)

    @pytest.mark.parametrize(
        ("stated", "message"),
        [
            ({"layout": "NHWC"}, "layout is NHWC, and the input of .* has NCHW"),
            ({"size": 64}, "size is 64, and the input of .* has 32"),
            ({"output": "logit"}, "has no output 'logit'; it has logits"),
            ({"architecture": "vit"}, "architecture is for timm's networks"),
            ({"scale": "0..2"}, "scale: Input should be '0..1' or '0..255'"),
            ({"weights": "model.pth"}, r"only \*\.safetensors and \*\.onnx are read"),
        ],
    )
    def test_a_contradiction_in_model_json_is_named(
        self, tmp_path: Path, stated: dict[str, object], message: str
    ) -> None:
        write_model(tmp_path, **stated)
        with pytest.raises(ModelError, match=message):
            read_folder(tmp_path)

    def test_a_tag_list_of_another_model_is_refused_with_both_numbers(self, tmp_path: Path) -> None:
        write_model(tmp_path, Tiny(5, logits="logits"))
        with pytest.raises(ModelError, match=r"lists? has 4 tags, .* no such output \[images, 4\]: logits \[None, 5\]"):
            read_folder(tmp_path)

    def test_several_outputs_without_a_known_name_have_to_be_stated(self, tmp_path: Path) -> None:
        write_model(tmp_path, Tiny(len(NAMES), logits="first", probabilities="second"))
        with pytest.raises(ModelError, match=r"several outputs with a value per tag: first, second\. Name one"):
            read_folder(tmp_path)
        write_model(tmp_path, Tiny(len(NAMES), logits="first", probabilities="second"), output="second")
        assert read_folder(tmp_path).output == "second"

    def test_a_step_of_preprocess_json_that_is_not_known_is_named(self, tmp_path: Path) -> None:
        write_onnx(tmp_path, Tiny(len(NAMES), logits="logits", probabilities="prediction"))
        write_csv(tmp_path / "selected_tags.csv", ["name", "ips"], [(name, "") for name in NAMES])
        write_json(tmp_path / "preprocess.json", {"test": [{"type": "random_crop", "size": 32}]})
        with pytest.raises(ModelError, match="the step 'random_crop' is not known"):
            read_folder(tmp_path)

    def test_weights_in_safetensors_come_first_and_model_json_can_choose(
        self, tmp_path: Path, timm_folder: Path
    ) -> None:
        (tmp_path / "model.safetensors").symlink_to(timm_folder / "model.safetensors")
        write_model(tmp_path, architecture="vit_tiny_patch16_224", size=64)
        assert read_folder(tmp_path).engine == "torch"
        write_model(tmp_path, weights="model.onnx")
        assert read_folder(tmp_path).engine == "onnx"

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("tag_mapping.json", {"0": {"tag": "a", "category": "General"}, "2": {"tag": "b", "category": "General"}}),
            ("model_vocabulary.json", {"idx_to_tag": {"1": "a", "2": "b"}}),
            ("tags.json", {"categories": [{"name": "general", "offset": 1, "count": 1, "tags": ["a"]}]}),
            ("class.json", {"0": "a", "1": ["b"]}),
            ("class.json", "text"),
        ],
    )
    def test_a_tag_list_with_gaps_or_of_another_form_is_refused(
        self, tmp_path: Path, name: str, content: object
    ) -> None:
        write_onnx(tmp_path, TINY)
        write_json(tmp_path / name, content)
        with pytest.raises(ModelError, match=f"{name} is not a tag list of a known form"):
            read_folder(tmp_path)


class TestRuntime:
    @pytest.mark.parametrize("batch", [1, 3])
    def test_a_fixed_number_of_images_is_run_in_pieces(self, tmp_path: Path, images: list[Decoded], batch: int) -> None:
        """One by one, or with the last piece filled."""
        tiny = replace(TINY, batch=batch)
        found = inferencer(read_folder(write_model(tmp_path, tiny)), batch_size=5).probabilities(images)
        np.testing.assert_allclose(found, expected(tiny, images), atol=1e-5)

    def test_an_input_of_float16_is_computed_in_float16(self, tmp_path: Path, images: list[Decoded]) -> None:
        tiny = Tiny(len(NAMES), logits="logits", half=True)
        half = inferencer(read_folder(write_model(tmp_path, tiny)))
        assert half.where == ("cpu", "float16")
        np.testing.assert_allclose(half.probabilities(images), expected(tiny, images), atol=0.02)

    def test_scores_do_not_depend_on_the_rest_of_the_batch(self, tmp_path: Path, images: list[Decoded]) -> None:
        spec = read_folder(write_model(tmp_path))
        alone = inferencer(spec, batch_size=1).probabilities(images)
        for size in (2, 5):
            together = inferencer(spec, batch_size=size).probabilities(images[::-1]).flip(0)
            torch.testing.assert_close(together, alone, atol=SMALL_DIFFERENCE, rtol=0)

    @pytest.mark.filterwarnings("ignore")  # of the exporter
    def test_the_same_network_on_torch_gives_the_same_scores(self, tmp_path: Path, timm_folder: Path) -> None:
        plain = read_folder(timm_folder)
        network = load_network(plain, torch.device("cpu"), torch.float32).backbone
        blank = torch.zeros(2, 3, plain.size, plain.size)
        axes = {name: {0: "N"} for name in ("input", "logits")}
        (tmp_path / "exported").mkdir()
        path = tmp_path / "exported" / "model.onnx"
        names = {"input_names": ["input"], "output_names": ["logits"], "dynamic_axes": axes}
        torch.onnx.export(network, (blank,), path, **names, dynamo=False)
        config = json.loads((timm_folder / "config.json").read_text())["pretrained_cfg"]
        write_json(path.with_name("tags.json"), {tag.name: index for index, tag in enumerate(plain.tags)})
        stated = {key: config[key] for key in ("mean", "std", "crop_pct", "crop_mode")}
        write_json(path.with_name("model.json"), STATED | stated)
        exported = read_folder(path.parent)
        random, pictures = np.random.default_rng(2), []
        for size in ((90, 61), (31, 200), (64, 64)):
            buffer = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(buffer, "png")
            pictures.append(buffer.getvalue())
        found = []
        for spec in (plain, exported):
            decoder = Decoder(spec, max_pixels=10**6)
            found.append(inferencer(spec).probabilities([decoder.decode(data) for data in pictures]))
        assert found[0].std() > 0.05
        torch.testing.assert_close(found[1], found[0], atol=FULL_PRECISION, rtol=0)

    def test_an_image_with_nan_fails_alone(self, tmp_path: Path) -> None:
        tiny = Tiny(len(NAMES), logits="logits")
        tiny.weights["kernel"][:] = 1e38  # its sum over a bright image is infinite, and so are the logits
        tiny.weights["linear"][:] = 1
        spec = read_folder(write_model(tmp_path, tiny))
        dark = Decoded(np.zeros((SIDE, SIDE, 3), np.uint8), SIDE, SIDE, "png")
        bright = Decoded(np.full((SIDE, SIDE, 3), 255, np.uint8), SIDE, SIDE, "png")
        scores = inferencer(spec).scores([dark, bright]).scores
        assert [one is None for one in scores] == [False, True]
        with pytest.raises(ImageError, match="the model gives NaN for it on cpu$"):
            inferencer(spec).probabilities([bright])

    def test_the_test_pictures_get_scores(self, tmp_path: Path) -> None:
        spec = read_folder(write_model(tmp_path))
        own = inferencer(spec)
        assert SelfTest(spec, lambda test: own.scores(test).scores, 10**6).passes()

    def test_a_batch_that_needs_too_much_memory_is_halved(self, tmp_path: Path, images: list[Decoded]) -> None:
        """A tensor of 2^40 numbers for two images, and of none for one."""
        path = write_model(tmp_path) / "model.onnx"
        model = onnx.load(path)
        number = 2**40
        nodes = [
            helper.make_node("Shape", ["bias_of_images"], ["n"], end=1),
            helper.make_node("Sub", ["n", "one"], ["more"]),
            helper.make_node("Mul", ["more", "many"], ["copies"]),
            helper.make_node("Expand", ["zero", "copies"], ["terms"]),
            helper.make_node("ReduceSum", ["terms"], ["sum"], keepdims=0),
            helper.make_node("Add", ["bias_of_images", "sum"], ["logits"]),
        ]
        for node in model.graph.node:
            if "logits" in node.output:
                node.output[0] = "bias_of_images"
        model.graph.node.extend(nodes)
        for name, kind, value in (("one", TensorProto.INT64, [1]), ("many", TensorProto.INT64, [number])):
            model.graph.initializer.append(helper.make_tensor(name, kind, [1], value))
        model.graph.initializer.append(helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))
        onnx.save_model(model, path)
        own = inferencer(read_folder(tmp_path), batch_size=2)
        assert len(own.scores(images).scores) == len(images)
        assert own.batch_size == 1

    def test_a_file_with_an_unknown_operator_is_refused_with_the_reason(self, tmp_path: Path) -> None:
        path = write_model(tmp_path) / "model.onnx"
        model = onnx.load(path)
        model.graph.node[0].op_type = "Transposed"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=r"cannot be loaded by ONNX Runtime .*Transposed.*newer onnxruntime"):
            inferencer(read_folder(tmp_path))

    def test_an_output_of_another_size_than_the_list_is_refused_with_both_numbers(self, tmp_path: Path) -> None:
        """Where the file does not say the size."""
        path = write_model(tmp_path, Tiny(5, logits="logits")) / "model.onnx"
        model = onnx.load(path)
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "tags"
        onnx.save_model(model, path)
        with pytest.raises(ModelError, match=r"logits is \[1, 5\] for 1 images, and the tag list has 4 tags"):
            inferencer(read_folder(tmp_path))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"compile": True}, "does not compile ONNX models"),
            ({"precision": "fp16"}, r"computes in float32, whatever --precision says \(fp16"),
            ({"device": "meta"}, "run on the CPU or on CUDA GPUs, not on 'meta'"),
        ],
    )
    def test_an_option_that_onnx_runtime_does_not_have_is_refused(
        self, tmp_path: Path, options: dict[str, object], message: str
    ) -> None:
        with pytest.raises(SettingsError, match=message):
            inferencer(read_folder(write_model(tmp_path)), **options)

    def test_a_missing_onnxruntime_is_said_with_the_command(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(SettingsError, match=r"pip install 'tagonce\[onnx\]'"):
            inferencer(read_folder(write_model(tmp_path)))

    def test_one_without_cuda_is_said_for_a_gpu(self) -> None:
        with pytest.raises(SettingsError, match=r"installed without CUDA, and the device is cuda:1.*onnx-gpu"):
            providers(torch.device("cuda:1"))

    def test_both_packages_at_once_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each overwrites files of the other."""
        installed: Callable[[str], str] = {"onnxruntime": "1", "onnxruntime-gpu": "1"}.__getitem__
        monkeypatch.setattr(metadata, "version", installed)
        with pytest.raises(SettingsError, match="onnxruntime and onnxruntime-gpu are both installed"):
            providers(torch.device("cpu"))
