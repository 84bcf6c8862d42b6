"""`make demo`: tag real photographs with a real model, then apply three thresholds.

    python -m tagonce.demo FOLDER

Copies the CC0 photographs of scikit-image into FOLDER, adds four unusual files, tags all of them with `tagonce tag`,
and shows the stored probabilities at three thresholds.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image, ImageDraw
from rich.table import Table

from db.database import open_database
from db.export import tagged_images as export
from db.ledger import models
from db.ledger.run_progress import failures_by_reason
from db.policy.policies import Policy, resolve, to_cut
from tagonce.output import ui

THRESHOLDS = (0.2, 0.35, 0.5)
PHOTOGRAPHS = (
    *("astronaut.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png", "color.png"),
    *("grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png"),
    *("motorcycle_right.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
)
SHOWN = ("chelsea", "transparent-cat", "coffee", "grey-coffee", "motorcycle_left", "clock_motion", "camera", "rocket")
LONGEST_CELL = 12
"""Maximum number of tags in a cell."""


def main(folder: Path) -> None:
    """Tag once, then apply three thresholds."""
    photos, database = folder / "photos", f"sqlite:///{folder / 'tags.db'}"
    if (folder / "tags.db").exists():
        shutil.rmtree(folder)  # of an earlier demo
    prepare(photos)
    command = str(Path(sys.executable).with_name("tagonce"))
    shown = f"{_near(command)} tag {photos} --model demo --database {database}"
    ui.errors.print(f"[bold]$ {shown}[/]")
    begun = time.perf_counter()
    subprocess.run([command, "tag", photos, "--model", "demo", "--database", database], check=True)
    tagging = time.perf_counter() - begun
    _show(database, tagging, _near(command), folder)


def prepare(photos: Path) -> None:
    """Copy the photographs, and create four files as they occur in large collections."""
    import skimage

    source = Path(skimage.__file__).parent / "data"
    photos.mkdir(parents=True)
    for name in PHOTOGRAPHS:
        shutil.copy(source / name, photos / name)
    with Image.open(source / "chelsea.png") as cat:
        mask = Image.new("L", cat.size, 0)
        ImageDraw.Draw(mask).ellipse((20, 5, cat.width - 20, cat.height - 5), fill=255)
        cat.putalpha(mask)
        cat.save(photos / "transparent-cat.png")
    with Image.open(source / "coffee.png") as coffee:
        coffee.convert("L").save(photos / "grey-coffee.jpg")
    Image.new("RGB", (1, 1), (200, 30, 30)).save(photos / "tiny.png")
    whole = (source / "rocket.jpg").read_bytes()
    (photos / "broken.jpg").write_bytes(whole[: len(whole) // 3])


def _show(database: str, tagging: float, command: str, folder: Path) -> None:
    opened = open_database(database, create=False)
    with opened.read() as connection:
        model = models.latest(connection)
        begun = time.perf_counter()
        tags = models.tag_names(connection, model.id)
        cuts = [resolve(model, tags, Policy(to_cut(threshold))) for threshold in THRESHOLDS]
        columns = [{Path(one.uri).stem: one for one in export.tagged_images(connection, model, cut)} for cut in cuts]
        rethresholding = time.perf_counter() - begun
        failed = failures_by_reason(connection, model.id)
    opened.close()
    table = Table("photograph", *(f"tags at {threshold:g}" for threshold in THRESHOLDS), show_lines=True)
    for name in SHOWN:
        table.add_row(name, *(_cell(list(column[name].tags)) for column in columns))
    ui.output.print(table)
    images = len(columns[0])
    ui.output.print(
        f"[bold]Tagged once[/]: {images} images in {tagging:.1f} s, including the start of the worker.\n"
        f"[bold]Thresholded {len(THRESHOLDS)} times[/]: in {rethresholding * 1000:.0f} ms, from the database, "
        f"without the model ({tagging / rethresholding:,.0f} times faster).\n"
        f"Failed: {', '.join(f'{count} {reason}' for reason, count in failed.items())}.\n"
        "The model knows the 1,000 classes of ImageNet and their groups: no people, no sky, no drawings.\n"
    )
    option = f"--database {database}"
    ui.output.print("Try next:")
    for line in (
        f"{command} search 'animal:0.5 -dog:0.2' --sort cat {option}",
        f"{command} thresholds diff 0.35 0.5 {option}",
        f"{command} export --threshold 0.35 --out {folder}/captions {option}",
        f"{command} export --threshold 0.5 --format jsonl --query cat {option}",
        f"{command} status {option}",
        f"{command} predict {folder}/photos/chelsea.png --model demo",
        f"sqlite3 {folder}/tags.db 'select uri, probability from tag_images where tag = \"cat\"'",  # noqa: S608
    ):
        ui.output.print(f"  {line}", markup=False)
    ui.output.print(
        f"\nTo move thresholds and see the effect: [bold]{command} review {option}[/], then open "
        "http://127.0.0.1:8765 in a browser."
    )


def _cell(tags: list[str]) -> str:
    if not tags:
        return "[dim]none[/]"
    more = f" [dim]and {len(tags) - LONGEST_CELL} more[/]" if len(tags) > LONGEST_CELL else ""
    return ", ".join(tag.replace("_", " ") for tag in tags[:LONGEST_CELL]) + more


def _near(path: str) -> str:
    """The path relative to the current folder, if it is below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


if __name__ == "__main__":
    main(Path(sys.argv[1]))
