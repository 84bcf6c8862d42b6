"""A GPU with SO400M at 384, in less than nine minutes: tests, the device alone, and tagonce from end to end.

    python bench/gpu.py [--device cuda] [--out gpu.md] [--parts prepare,model,tests,one,...] [--seconds 480]

Each part (`gpu_parts.py`) is a process with a time limit of its own, and the most valuable parts run first. Figures are
printed as soon as they are known; `--out` gets them as a Markdown table. JPEGs of a megapixel are made in the
background while other parts run. The network has the shape of JTP-1 and random weights; `--model` takes another one. On
a CPU it is a tiny one, and all sizes are small. `make gpu` runs this; docs/gpu.md says what the parts mean.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).parent
PARTS = {
    "prepare": 60,
    "model": 75,
    "tests": 110,
    "one": 80,
    "attention": 60,
    "attention-deprioritized": 30,
    "two": 80,
    "agreement": 45,
    "compiled": 150,
}
"""In the order of their worth, with seconds."""
ENVIRONMENT = {"attention-deprioritized": {"TORCH_CUDNN_SDPA_DEPRIORITIZED": "1"}}
STOP_SECONDS = 10.0
"""For a part that is over its limit to stop its servers."""
PHOTOS = {"cuda": 8_000, "cpu": 24}
DRAWN = 400
"""So many photographs are drawn; the others are copies with another comment, which takes a hundredth of the time."""


def main() -> None:
    """Run the parts; the exit code is 1 if one failed. A part that ran out of time has not failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--model", help="so400m, tiny, or as `tagonce --model` takes it; default: so400m, on a CPU tiny"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=480, help="for all parts")
    parser.add_argument("--images", type=int, help="photographs; default: 8,000, on a CPU 24")
    parser.add_argument("--out", type=Path, help="a file for the table")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/tagonce-bench"), help="photographs and weights")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--parts: there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    kind = options.device.partition(":")[0]
    images = options.images or PHOTOS.get(kind, PHOTOS["cuda"])
    arguments = [options.device, options.model or ("tiny" if kind == "cpu" else "so400m"), options.folder, str(images)]
    end = time.monotonic() + options.seconds
    table = ["| part | | |", "|---|---|---|"]
    failed = []
    with photographs(options.folder, images):
        for part in parts:
            print(f"\n{part}", flush=True)
            for name, value in run(part, list(map(str, arguments)), min(PARTS[part], end - time.monotonic())):
                print(f"  {name:<58} {value}", flush=True)
                table.append(f"| {part} | {name} | {value} |")
                if name == "failed":
                    failed.append(part)
                if options.out:
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    options.out.write_text("\n".join(table) + "\n")
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}")


@contextmanager
def photographs(folder: Path, number: int) -> Iterator[None]:
    """Made in the background by a process that ends with the block; parts wait for them."""
    maker = subprocess.Popen([sys.executable, HERE / "photos.py", folder, str(number), str(DRAWN)])
    try:
        yield
    finally:
        maker.terminate()
        maker.wait()


def run(part: str, arguments: list[str], seconds: float) -> Iterator[tuple[str, str]]:
    """Names and values, as the process of a part prints them."""
    if seconds <= 0:
        yield "left out", "no time is left"
        return
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, HERE / "gpu_parts.py", part, *arguments],
        env=os.environ | ENVIRONMENT.get(part, {}),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a part can be stopped with its children
    )
    late = threading.Event()
    timer = threading.Timer(seconds, stop, (process, late))
    timer.start()
    try:
        for line in process.stdout or ():
            with suppress(ValueError, TypeError):
                name, value = json.loads(line)
                yield name, value
                continue
            print(line, end="", flush=True)
        code = process.wait()
    finally:
        timer.cancel()
        kill(process, signal.SIGKILL)
    if late.is_set():
        yield "stopped", f"at its limit of {seconds:.0f} s"
    elif code:
        yield "failed", f"exit code {code}; the reason is above"
    else:
        yield "seconds", f"{time.monotonic() - begun:.0f}"


def stop(process: subprocess.Popen[str], late: threading.Event) -> None:
    """As by Ctrl-C, so that the part stops its servers; then at once."""
    late.set()
    kill(process, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    kill(process, signal.SIGKILL)


def kill(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal to a part and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


if __name__ == "__main__":
    main()
