"""`tagonce doctor`: checks of an installation, with advice."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from db.errors import EXIT_FAILED, SettingsError
from tagonce.doctor.finding import Finding, Status
from tagonce.options import parameters
from tagonce.output import ui

if TYPE_CHECKING:
    from tagonce.settings import Settings

COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red", Status.SKIPPED: "dim"}
INDENT = " " * 20
GIGABYTE = 1e9
SERVER_SECONDS = 12.0
"""Connecting to a dead host fails after 10."""
LOCAL_SECONDS = 120.0
"""Importing torch and hashing gigabytes of weights may take a minute on a slow disk."""


def command(
    sources: parameters.OptionalSources = None,
    model: parameters.ModelName = None,
    database: parameters.DatabaseUrl = None,
    broker: parameters.BrokerUrl = None,
    device: parameters.Device = None,
    min_free: Annotated[float, typer.Option(min=0, help="Warn if a disk has fewer gigabytes free.")] = 1.0,
    json: parameters.Json = False,
) -> None:
    """Check settings, database, broker, clock, storage, model, device and disks, and suggest fixes.

    Nothing is written or downloaded. SOURCE is a source to be tagged; without one, images of the database are read.
    The exit code is 1 if a check failed.

    Example: tagonce doctor s3://photos/2024/
    """
    from tagonce import settings

    try:
        config = settings.load(model=model, database_url=database, broker_url=broker, device=device)
    except SettingsError as error:
        advice = "Correct them and run this again; the other checks need them."
        findings: Iterable[Finding] = [Finding("settings", Status.FAILED, str(error), advice)]
    else:
        findings = _look(config, sources or [], least_free=min_free * GIGABYTE)
    shown = list(findings) if json else list(_printed(findings))
    if json:
        ui.print_json([asdict(finding) for finding in shown])
    else:
        counts = [f"{_count(shown, status)} {status}" for status in (Status.FAILED, Status.WARNING)]
        ui.errors.print(f"{', '.join(counts)}, of {len(shown)} lines.")
    if _count(shown, Status.FAILED):
        raise typer.Exit(EXIT_FAILED)


def _look(config: "Settings", sources: list[str], *, least_free: float) -> Iterator[Finding]:
    from tagonce.doctor import brokers, configuration, contents, databases, disk, machine, storages
    from tagonce.doctor.finding import Check, run

    checks = [
        Check(configuration.NAME, configuration.look, SERVER_SECONDS),
        Check(databases.NAME, partial(databases.look, config, least_free=least_free), SERVER_SECONDS),
        Check(brokers.NAME, partial(brokers.look, config), SERVER_SECONDS),
        Check(brokers.QUEUE, partial(brokers.look_at_queue, config), SERVER_SECONDS),
        Check(storages.ROOTS, partial(storages.look_at_roots, config), storages.SECONDS),
        *(
            storages.of_sources(sources, config)
            if sources
            else [Check(storages.NAME, partial(storages.of_database, config), storages.SECONDS)]
        ),
        Check(contents.IMAGES, partial(contents.look_at_images, config), storages.SECONDS),
        Check(contents.ROWS, partial(contents.look_at_rows, config), SERVER_SECONDS),
        Check(contents.PROFILES, partial(contents.look_at_profiles, config), SERVER_SECONDS),
        Check(machine.MODEL, partial(machine.look_at_model, config), LOCAL_SECONDS),
        Check(machine.DEVICE, partial(machine.look_at_device, config), LOCAL_SECONDS),
        Check(disk.NAME, partial(disk.look, least_free=least_free), SERVER_SECONDS),
    ]
    return run(checks, configuration.secrets(config))


def _printed(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Print each finding as soon as it is known."""
    for finding in findings:
        status = Text(f"{finding.status:<8}", style=COLOURS[finding.status])
        first, *more = (ui.printable(line) for line in f"{finding.message}\n{finding.advice}".strip().splitlines())
        ui.output.print(status, Text(f"{finding.check:<10}"), Text(first))
        for line in more:
            ui.output.print(Text(f"{INDENT}{line}"))
        yield finding


def _count(findings: Iterable[Finding], status: Status) -> int:
    return sum(finding.status is status for finding in findings)
