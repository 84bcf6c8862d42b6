"""What the extension of a name says: an image, or something that is none."""

import mimetypes

from db.errors import SourceError

# fmt: off
IMAGE_EXTENSIONS = frozenset({
    "jpg", "jpeg", "jpe", "jfif", "jif", "mpo", "png", "apng", "gif", "webp", "avif", "avifs", "heic",
    "heif", "hif", "jxl", "bmp", "dib", "tif", "tiff", "jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "ppm",
    "pgm", "pbm", "pnm", "pfm", "qoi", "tga", "icb", "vda", "vst", "ico", "cur", "icns", "psd", "pcx",
    "dcx", "sgi", "rgb", "rgba", "bw", "dds", "blp", "ras", "xbm", "xpm",
})
# fmt: on
"""Extensions in lower case and without the dot.

Those of `workers.images.safe_open.FORMATS`, and heic, jxl and blp, which are pictures but are not decoded: they become
failures of reason `unsupported`, and are not silently passed over.
"""

KNOWN = " ".join(sorted(IMAGE_EXTENSIONS))
"""For error messages."""


def extension(name: str) -> str:
    """What follows the last dot of a path or key, in lower case; empty when there is none."""
    _, dot, tail = name.rpartition("/")[2].rpartition(".")
    return tail.lower() if dot else ""


def is_image(name: str) -> bool:
    return extension(name) in IMAGE_EXTENSIONS


_ARCHIVES = frozenset(
    {"zip", "tar", "tgz", "tbz", "tbz2", "txz", "7z", "rar", "gz", "bz2", "xz", "zst", "lz4", "cbz", "cbr"}
)
_DATA = frozenset({
    "json", "xml", "yaml", "yml", "toml", "xls", "xlsx", "ods", "arrow", "feather", "db", "sqlite", "sqlite3",
    "safetensors", "ckpt", "pt", "pth", "onnx", "npy", "npz", "pkl", "md", "log",
})  # fmt: skip
_TYPES = mimetypes.MimeTypes()
"""Python's own table, whatever this machine adds to it."""


def refuse_other(source: str) -> None:
    """Before anything is done with a source that is one file: its name may say that it is no picture.

    A name without an extension, or with one that nobody knows, says nothing, and the content decides.

    Raises:
        SourceError: with what can be given instead.
    """
    kind = extension(source)
    if not kind or kind in IMAGE_EXTENSIONS:
        return
    top = (_TYPES.guess_type(f"name.{kind}", strict=False)[0] or "").partition("/")[0]
    if kind in _ARCHIVES:
        advice = "Unpack it, and give the folder or the list in it."
    elif kind in _DATA or (top == "text" and kind != "text"):
        advice = (
            "A list of images is read as .txt, .csv, .tsv, .jsonl or .parquet, a reference a line or a column that "
            "holds them: write one of these."
        )
    elif top in {"video", "audio"}:
        advice = "Write its frames as images, and give their folder."
    elif top in {"", "image"} or kind == "bin":
        return
    else:
        advice = "Give an image, a folder of images, s3://bucket/prefix, or a list of these."
    raise SourceError(
        f"{source!r} is neither an image nor a list, by its name (.{kind}). {advice} --all-names takes it as an image."
    )
