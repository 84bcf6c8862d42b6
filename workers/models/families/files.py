"""The files of a model folder, as the modules of the families look at them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import ModelError
from workers.models.safetensors_header import Header
from workers.models.tag_files import read_json

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A folder with its weight file's header and its configuration."""

    folder: Path
    weights: Path
    header: Header
    stated: Mapping[str, Any]
    """The keys of `model.json`, which take precedence over the fields of the family."""

    @property
    def stated_tags(self) -> Path | None:
        """The tag list that `model.json` names; None if it names none."""
        return self.folder / self.stated["tags"] if "tags" in self.stated else None

    def size(self, usual: int) -> int:
        """Side of the input: that of `model.json`, or the usual one of the family."""
        size: int = self.stated.get("size", usual)
        return size

    def has(self, *tensors: str) -> bool:
        """Whether the weight file has all of these tensors."""
        return all(name in self.header.shapes for name in tensors)

    def shape(self, tensor: str, axes: int) -> tuple[int, ...]:
        """Shape of a tensor.

        Raises:
            ModelError: it is missing, or has another number of axes.
        """
        shape = self.header.shapes.get(tensor)
        if shape is None or len(shape) != axes:
            found = "is missing" if shape is None else f"is {shape}"
            raise ModelError(f"{self.weights}: {tensor} should have {axes} axes, and {found}. Download it again.")
        return shape

    def config(self) -> dict[str, Any]:
        """The object in config.json; empty if there is none."""
        path = self.folder / "config.json"
        content = read_json(path) if path.exists() else {}
        return content if isinstance(content, dict) else {}

    def tag_file(self, *patterns: str) -> Path:
        """The tag list: that of `model.json`, else the first file that matches one of the patterns.

        Raises:
            ModelError: there is none.
        """
        if self.stated_tags is not None:
            return self.stated_tags
        for pattern in patterns:
            for path in sorted(self.folder.glob(pattern)):
                return path
        raise ModelError(f"{self.folder} has no tag list. Put {' or '.join(patterns)} there, beside the weights.")

    def expect_tags(self, source: Path, tags: int, tensor: str, rows: int) -> None:
        """Refuse a list that belongs to another model.

        Raises:
            ModelError: the tensor has another number of rows than the list has tags.
        """
        if tags != rows:
            raise ModelError(
                f"{source} lists {tags} tags, and {tensor} of {self.weights.name} is for {rows}. "
                "The weights and the tag list belong to different models."
            )
