"""Extensions of names: which are images, and which are known to be something else."""

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

Those of `workers.images.safe_open.FORMATS`, and heic, jxl and blp, which are not decoded. These become failures of
reason `unsupported` instead of being skipped silently.
"""

KNOWN = " ".join(sorted(IMAGE_EXTENSIONS))
"""For error messages."""


def extension(name: str) -> str:
    """The part after the last dot of a path or key, in lower case; empty if there is no dot."""
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
"""Python's own table, without the additions of this machine."""


def refuse_other(source: str) -> None:
    """Refuse a source that is a single file of a known kind other than an image, before it is read.

    A name without an extension, or with an unknown one, is accepted: its content decides.

    Raises:
        SourceError: the name is that of another kind; the message says what can be given instead.
    """
    kind = extension(source)
    if not kind or kind in IMAGE_EXTENSIONS:
        return
    top = (_TYPES.guess_type(f"name.{kind}", strict=False)[0] or "").partition("/")[0]
    if kind in _ARCHIVES:
        advice = "Unpack it, and give the folder or the list in it."
    elif kind in _DATA or (top == "text" and kind != "text"):
        advice = (
            "Write a list of images as .txt, .csv, .tsv, .jsonl or .parquet, with a reference in each line or a column "
            "of references."
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
