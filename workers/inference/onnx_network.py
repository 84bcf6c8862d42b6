"""Runs an ONNX file with ONNX Runtime, in the place of the networks of `workers.inference.network`.

Input and output are bound to tensors of torch on the same device (IO binding), so that nothing is copied.
"""

from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import pad

from db.errors import ModelError, SettingsError
from workers.cpus import cores
from workers.inference.device import pick_device
from workers.inference.network import probabilities_of
from workers.models.spec import ModelSpec
from workers.options import Options

if TYPE_CHECKING:
    import onnxruntime

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}
_ERRORS_ONLY_RAISED = 4
"""Severity above that of errors: exceptions have the same text."""


class OnnxNetwork:
    """The network of an ONNX file, with the interface of `Network`. Only one thread may call it at a time.

    Args:
        spec: the model.
        device: the CPU or a CUDA GPU.
        options: those of torch's networks; `precision` and `compile` cannot be asked for.

    Raises:
        ModelError: ONNX Runtime cannot load the file, or the file changed meanwhile.
        SettingsError: ONNX Runtime is not installed, or not for this device; an option is not for ONNX files.
    """

    def __init__(self, spec: ModelSpec, device: torch.device, options: Options) -> None:
        if options.compile:
            raise SettingsError("torch does not compile ONNX models. Set --no-compile (TAGONCE_COMPILE=False).")
        self._spec = spec
        self._device = device
        self._session = _session(spec, device, options.torch_threads)
        spec.check_weights()
        (images,) = self._session.get_inputs()
        self._input = images.name
        self.batch: int | None = images.shape[0] if isinstance(images.shape[0], int) else None
        """Images in a run, if the file fixes them; batches of other sizes are run in pieces."""
        self.dtype = _TYPES[images.type]
        """Type of the input, in which most of the file computes."""
        if options.precision not in ("auto", {torch.float32: "fp32", torch.float16: "fp16"}[self.dtype]):
            raise SettingsError(
                f"{spec.weights} computes in {str(self.dtype).removeprefix('torch.')}, whatever --precision says "
                f"({options.precision}, TAGONCE_PRECISION). Set it to auto, or use another export of the model."
            )
        output = next(one for one in self._session.get_outputs() if one.name == spec.output)
        if output.type not in _TYPES:
            raise ModelError(f"{spec.weights}: the output {output.name} is {output.type}, not float32 or float16.")
        self._output_type = _TYPES[output.type]
        if output.shape[1] != spec.outputs:  # a name: the file does not fix it
            self._check_output()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities, fp32 [N, T], of images [N, 3, S, S] from `Preprocess.normalise`.

        Raises:
            RuntimeError: ONNX Runtime fails; `is_out_of_memory` recognises a lack of memory.
        """
        inputs = images.permute(0, 2, 3, 1) if self._spec.layout == "NHWC" else images
        inputs = inputs.to(self.dtype).contiguous()
        outputs = torch.cat([self._run(piece) for piece in torch.split(inputs, self.batch or len(inputs))])
        return probabilities_of(outputs.float(), self._spec.activation)

    def _check_output(self) -> None:
        """Check the number of outputs by a run: a binding would only fail, without the number."""
        shape = (3, self._spec.size, self._spec.size) if self._spec.layout == "NCHW" else (self._spec.size,) * 2 + (3,)
        blank = torch.zeros(self.batch or 1, *shape, dtype=self.dtype)
        (found,) = self._session.run([self._spec.output], {self._input: blank.numpy()})
        if found.shape != (len(blank), self._spec.outputs):
            raise ModelError(
                f"{self._spec.weights}: {self._spec.output} is {list(found.shape)} for {len(blank)} images, and the "
                f"tag list has {self._spec.outputs} tags. The model and the tag list belong to different models."
            )

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        """Raw outputs [N, T] of at most `batch` images."""
        number = len(images)
        if self.batch is not None and number < self.batch:
            images = pad(images, (0, 0, 0, 0, 0, 0, 0, self.batch - number))
        outputs = torch.empty(len(images), self._spec.outputs, dtype=self._output_type, device=self._device)
        binding: Any = self._session.io_binding()
        binding.bind_input(**self._bound(self._input, images))
        binding.bind_output(**self._bound(self._spec.output, outputs))
        if self._device.type == "cuda":
            # ONNX Runtime has a stream of its own, and returns when its work there is done.
            torch.cuda.current_stream(self._device).synchronize()
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise RuntimeError(f"ONNX Runtime cannot run {self._spec.weights}: {error}") from error
        return outputs[:number]

    def _bound(self, name: str, tensor: torch.Tensor) -> dict[str, Any]:
        return {
            "name": name,
            "device_type": self._device.type,
            "device_id": self._device.index or 0,
            "element_type": np.float16 if tensor.dtype == torch.float16 else np.float32,
            "shape": tuple(tensor.shape),
            "buffer_ptr": tensor.data_ptr(),
        }


def pick_onnx_device(name: str) -> torch.device:
    """The device of a name, as `pick_device`. `auto` is the CPU where torch would take Apple's GPU.

    Raises:
        SettingsError: this machine has no such device, or ONNX Runtime does not run on it here.
    """
    device = pick_device(name)
    if device.type == "mps" and name == "auto":
        return torch.device("cpu")
    if device.type not in {"cpu", "cuda"}:
        raise SettingsError(f"ONNX models run on the CPU or on CUDA GPUs, not on {name!r}. Set --device cpu.")
    return device


def providers(device: torch.device) -> Sequence[str]:
    """Names of ONNX Runtime's execution providers for a device, the preferred one first.

    Raises:
        SettingsError: ONNX Runtime is not installed, is installed twice, or does not run on the device.
    """
    runtime = _onnxruntime()
    if device.type == "cpu":
        return [CPU]
    if CUDA not in runtime.get_available_providers():
        raise SettingsError(
            f"ONNX Runtime {runtime.__version__} is installed without CUDA, and the device is {device}. Run: pip "
            "uninstall onnxruntime && pip install 'tagonce[onnx-gpu]'. Or set --device cpu."
        )
    return [CUDA, CPU]


def version() -> str:
    """The version of ONNX Runtime. Raises SettingsError if it is not installed."""
    found: str = _onnxruntime().__version__
    return found


def _onnxruntime() -> Any:
    installed = [name for name in _DISTRIBUTIONS if _is_installed(name)]
    if len(installed) > 1:
        raise SettingsError(
            f"{' and '.join(installed)} are both installed, and overwrite each other's files. Run: pip uninstall "
            "onnxruntime onnxruntime-gpu, then: pip install 'tagonce[onnx]' or 'tagonce[onnx-gpu]'."
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingsError(
            f"An ONNX model needs ONNX Runtime ({error}). Run: pip install 'tagonce[onnx]', or on a machine with a "
            "CUDA GPU: pip install 'tagonce[onnx-gpu]'."
        ) from error
    return onnxruntime


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _session(spec: ModelSpec, device: torch.device, threads: int | None) -> "onnxruntime.InferenceSession":
    wanted = providers(device)
    runtime = _onnxruntime()
    if device.type == "cuda":
        runtime.preload_dlls()  # the CUDA libraries that torch brings
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.log_severity_level = _ERRORS_ONLY_RAISED
    # A thread that waits for work by spinning takes the decoders' cores: a third of the CPU time of the demo model.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # An arena that doubles would keep twice the memory of one batch.
    on_gpu = {"device_id": device.index or 0, "arena_extend_strategy": "kSameAsRequested"}
    try:
        session: onnxruntime.InferenceSession = runtime.InferenceSession(
            str(spec.weights), options, providers=[(name, on_gpu if name == CUDA else {}) for name in wanted]
        )
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0].rstrip(".")
        raise ModelError(
            f"{spec.weights} cannot be loaded by ONNX Runtime {runtime.__version__}: {first_line}. Download it again, "
            "or install a newer onnxruntime."
        ) from error
    if session.get_providers()[0] != wanted[0]:  # it falls back to the CPU
        raise SettingsError(
            f"ONNX Runtime {runtime.__version__} cannot use {device}: it has no {wanted[0]}. Its CUDA libraries must "
            "be of the version that it was built for: see https://onnxruntime.ai. Or set --device cpu."
        )
    return session
