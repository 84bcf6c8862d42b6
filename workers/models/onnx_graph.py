"""Reads the inputs, the outputs and the external files of an ONNX file, without onnxruntime and without the weights.

The format (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto): one protobuf message `ModelProto`. Its graph, and
the attributes of nodes, contain tensors, which are in the file or, by name, offset and length, in a file beside it.
Only the fields below are read; all others are skipped by their length.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from db.errors import ModelError

FLOAT, FLOAT16 = 1, 10
"""`TensorProto.DataType`."""

Dimension = int | None
"""None: any size."""
Bytes = memoryview

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
"""Wire types of protobuf (https://protobuf.dev/programming-guides/encoding/)."""
_GRAPH, _FUNCTION = 7, 25
"""Of `ModelProto`."""
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE_INITIALIZER = 1, 5, 11, 12, 15
"""Of `GraphProto`."""
_TENSOR_NAME, _EXTERNAL_DATA = 8, 13
"""Of `TensorProto`."""
_CONTAINERS = {
    "model": {_GRAPH: "graph", _FUNCTION: "function"},
    "function": {7: "node"},
    "graph": {_NODE: "node", _INITIALIZER: "tensor", _SPARSE_INITIALIZER: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""The fields of each message through which a tensor is reached, and the messages in them."""


@dataclass(frozen=True, slots=True)
class Value:
    """An input or an output of a graph."""

    name: str
    type: int
    """`TensorProto.DataType`; 0 if it is no tensor."""
    shape: tuple[Dimension, ...]


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """What is known of a graph without running it."""

    inputs: tuple[Value, ...]
    """Without those that have a value in the file."""
    outputs: tuple[Value, ...]
    external: tuple[Path, ...]
    """Files with weights beside the ONNX file, sorted by name."""


def read_onnx(path: Path) -> OnnxGraph:
    """Inputs, outputs and external files of an ONNX file.

    Raises:
        ModelError: the file cannot be read, is no ONNX file, or is incomplete; an external file is missing, incomplete,
            or in another folder.
    """
    try:
        with path.open("rb") as file:
            if file.read(8) == b"version ":
                raise ModelError(f"{path} is a Git LFS pointer, not the model. Run `git lfs pull` there.")
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        graph, needed = _read(whole)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(f"{path} is not an ONNX file, or is incomplete. Download it again.") from error
    external = tuple(_external_file(path, location, size) for location, size in sorted(needed.items()))
    return OnnxGraph(*graph, external)


def _read(model: Bytes) -> tuple[tuple[tuple[Value, ...], tuple[Value, ...]], dict[str, int]]:
    """Inputs and outputs; the bytes that each external file must have, by name."""
    graphs = [value for field, value in _fields(model) if field == _GRAPH and isinstance(value, Bytes)]
    if len(graphs) != 1:
        raise ValueError
    inputs, outputs, given = [], [], set()
    for field, value in _fields(graphs[0]):
        if field == _INPUT:
            inputs.append(_value(_message(value)))
        elif field == _OUTPUT:
            outputs.append(_value(_message(value)))
        elif field == _INITIALIZER:
            given.add(_text(_message(value), _TENSOR_NAME))
    needed: dict[str, int] = {}
    for tensor in _tensors(model, "model"):
        entries = [_entry(_message(value)) for field, value in _fields(tensor) if field == _EXTERNAL_DATA]
        if entries:
            stated = dict(entries)
            end = int(stated.get("offset", 0)) + int(stated.get("length", 0))
            needed[stated["location"]] = max(end, needed.get(stated["location"], 0))
    return (tuple(one for one in inputs if one.name not in given), tuple(outputs)), needed


def _tensors(message: Bytes, kind: str) -> Iterator[Bytes]:
    if kind == "tensor":
        yield message
        return
    for field, value in _fields(message):
        if field in _CONTAINERS[kind]:
            yield from _tensors(_message(value), _CONTAINERS[kind][field])


def _value(message: Bytes) -> Value:
    """Of a `ValueInfoProto`: name 1; type 2, its tensor type 1, in it the element type 1 and the shape 2."""
    tensor = _inner(_inner(message, 2), 1)
    dimensions = [_message(value) for field, value in _fields(_inner(tensor, 2)) if field == 1]
    # 1 is a number, 2 a name such as "batch". Exporters write 0 or -1, too, where any size is accepted.
    sizes = [next((value for field, value in _fields(one) if field == 1), 0) for one in dimensions]
    kind = next((value for field, value in _fields(tensor) if field == 1), 0)
    shape = tuple(size if isinstance(size, int) and 0 < size < 1 << 63 else None for size in sizes)
    return Value(_text(message, 1), kind if isinstance(kind, int) else 0, shape)


def _entry(message: Bytes) -> tuple[str, str]:
    """Of a `StringStringEntryProto`."""
    return _text(message, 1), _text(message, 2)


def _inner(message: Bytes, number: int) -> Bytes:
    return next((_message(value) for field, value in _fields(message) if field == number), message[:0])


def _text(message: Bytes, number: int) -> str:
    return bytes(_inner(message, number)).decode()


def _message(value: int | Bytes) -> Bytes:
    if isinstance(value, int):
        raise TypeError
    return value


def _fields(message: Bytes) -> Iterator[tuple[int, int | Bytes]]:
    """Number and value of each field that is a whole number or has a length."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            whole, position = _varint(message, position)
            yield number, whole
            continue
        length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind)
        if kind == _LENGTH:
            length, position = _varint(message, position)
        if length is None or number == 0:
            raise ValueError
        end = position + length
        if end > len(message):
            raise ValueError
        if kind == _LENGTH:
            yield number, message[position:end]
        position = end


def _varint(message: Bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and the position behind it."""
    value = shift = 0
    while True:
        if position >= len(message) or shift > 63:  # noqa: PLR2004 - bits of a number
            raise ValueError
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:  # noqa: PLR2004 - the last byte has no high bit
            return value, position
        shift += 7


def _external_file(path: Path, location: str, needed: int) -> Path:
    if Path(location).name != location or "\\" in location:
        raise ModelError(
            f"{path} keeps weights in {location!r}. Only a file in the same folder is read: export the model again "
            "with a file name without folders."
        )
    file = path.parent / location
    if not file.is_file():
        raise ModelError(f"{path} keeps its weights in {location}, which is missing. Put that file beside it.")
    if (size := file.stat().st_size) < needed:
        raise ModelError(f"{file} has {size:,} bytes and should have {needed:,}. Download it again.")
    return file
