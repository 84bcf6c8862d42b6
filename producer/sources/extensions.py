"""Which names are taken for images when nobody named the file itself."""

# fmt: off
IMAGE_EXTENSIONS = frozenset({
    "jpg", "jpeg", "jpe", "jfif", "jif", "mpo", "png", "apng", "gif", "webp", "avif", "avifs", "heic",
    "heif", "hif", "jxl", "bmp", "dib", "tif", "tiff", "jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "ppm",
    "pgm", "pbm", "pnm", "pfm", "qoi", "tga", "icb", "vda", "vst", "ico", "cur", "icns", "psd", "pcx",
    "dcx", "sgi", "rgb", "rgba", "bw", "dds", "blp", "ras", "xbm", "xpm",
})
# fmt: on
"""Extensions in lower case and without the dot.

Those of `workers.opening.FORMATS`, and heic, jxl and blp, which are pictures but are not decoded: they become
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
