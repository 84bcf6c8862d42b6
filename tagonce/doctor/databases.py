"""The database: whether it exists, is up to date, is writable, and has space."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from db import migrate
from db.database import Database
from db.migrate import Level
from tagonce.doctor import clock, disk
from tagonce.doctor.finding import Finding, Status
from tagonce.settings import Settings

NAME = "database"
OLDEST_POSTGRESQL = 11
"""A migration calls its sha256()."""
CONNECTIONS_A_WORKER = 15
"""At most: SQLAlchemy's pool and its overflow."""
_UPGRADE = "`tagonce migrate`, or the next `tag`, `enqueue` or `worker` whose user may create tables,"
_MOUNTS = Path("/proc/self/mounts")
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "ceph", "lustre", "afs"}
"""File systems on which locks or shared memory of SQLite do not work."""


def look(config: Settings, *, least_free: float) -> Iterator[Finding]:
    """Check the database of the settings.

    Args:
        least_free: bytes.
    """
    database = Database(config.database_url)
    try:
        file = database.file
        if file:
            yield from _file(file, least_free)
            if not file.exists():
                return
        with database.read() as connection:
            yield from _postgresql(connection, database.label) if file is None else _sqlite(connection, file)
            yield _level(migrate.level(connection))
            if file is None:
                yield clock.finding(_skew(connection), "the database", config.lease_seconds)
    finally:
        database.close()


def _level(level: Level) -> Finding:
    if level.newer:
        words = f"its schema {level.present} is of a newer tagonce; this one knows up to {level.head}"
        return Finding(NAME, Status.FAILED, words, "Upgrade this program.")
    if level.current:
        return Finding(NAME, Status.OK, f"schema {level.present}, up to date")
    if level.present is None:
        return Finding(NAME, Status.OK, f"no tables yet: {_UPGRADE} creates them")
    if level.interrupted:
        return Finding(NAME, Status.WARNING, "an upgrade is not complete", f"{_UPGRADE} goes on with it.")
    words = f"its schema {level.present} is older than this program's, {level.head}"
    advice = f"Stop all workers and producers of the older version. {_UPGRADE} upgrades it."
    return Finding(NAME, Status.WARNING, words, advice)


def _file(file: Path, least_free: float) -> Iterator[Finding]:
    folder = file.absolute().parent
    if not folder.is_dir():
        yield Finding(NAME, Status.FAILED, f"there is no folder {folder}", "Create it, or check TAGONCE_DATABASE_URL.")
        return
    # SQLite also writes its log next to the file.
    for path in (folder, file):
        if path.exists() and not os.access(path, os.W_OK):
            yield Finding(NAME, Status.FAILED, f"{path} is not writable", "Change its permissions: workers write here.")
    if (kind := file_system(folder)) in _NETWORK:
        yield Finding(
            NAME,
            Status.WARNING,
            f"{folder} is on a network file system ({kind}), where SQLite's locks cannot be relied on",
            "Put the database on a local disk, or use PostgreSQL.",
        )
    yield disk.finding(NAME, folder, least_free)
    if not file.exists():
        yield Finding(NAME, Status.OK, f"{file} does not exist yet: the first `tagonce tag` creates it")


def file_system(folder: Path) -> str:
    """Type of the file system of a folder; empty if unknown."""
    if not _MOUNTS.exists():
        return ""
    lines = [line.split(" ") for line in _MOUNTS.read_text(errors="replace").splitlines()]
    holding = [(len(place), kind) for _device, place, kind, *_rest in lines if folder.is_relative_to(place)]
    return max(holding)[1] if holding else ""


def _sqlite(connection: Connection, file: Path) -> Iterator[Finding]:
    version, mode = (connection.scalar(text(query)) for query in ("select sqlite_version()", "pragma journal_mode"))
    yield Finding(NAME, Status.OK, f"SQLite {version}, {file}")
    if mode != "wal":
        yield Finding(
            NAME,
            Status.FAILED,
            f"it has no write-ahead log (journal_mode {mode}): readers and the worker block each other",
            "Put the database on a local disk.",
        )


def _postgresql(connection: Connection, label: str) -> Iterator[Finding]:
    shown = {
        name: str(connection.scalar(text(f"show {name}")))
        for name in (
            "server_version",
            "server_version_num",
            "server_encoding",
            "max_connections",
            "default_transaction_read_only",
        )
    }
    megabytes = (connection.scalar(text("select pg_database_size(current_database())")) or 0) / 1e6
    yield Finding(NAME, Status.OK, f"PostgreSQL {shown['server_version']}, {label}, {megabytes:,.0f} MB")
    if int(shown["server_version_num"]) // 10_000 < OLDEST_POSTGRESQL:
        yield Finding(NAME, Status.FAILED, f"PostgreSQL {OLDEST_POSTGRESQL} or newer is needed", "Upgrade the server.")
    if shown["server_encoding"] != "UTF8":
        yield Finding(
            NAME,
            Status.FAILED,
            f"its encoding is {shown['server_encoding']}, and names of images and tags may contain any character",
            "Create another one: createdb --encoding UTF8 --template template0 NAME",
        )
    # Not `transaction_read_only`: this transaction is read-only itself.
    if shown["default_transaction_read_only"] == "on" or connection.scalar(text("select pg_is_in_recovery()")):
        yield Finding(NAME, Status.FAILED, "it is read-only (a standby?)", "Point TAGONCE_DATABASE_URL at the primary.")
    yield from _pooler(connection)
    # Of all databases, as max_connections is; pg_stat_activity hides other users from a plain user.
    used = connection.scalar(text("select sum(numbackends) from pg_stat_database")) or 0
    most = int(shown["max_connections"])
    words = f"{used} of {most} connections in use; a worker opens up to {CONNECTIONS_A_WORKER}"
    if most - used < CONNECTIONS_A_WORKER:
        yield Finding(NAME, Status.WARNING, words, "Raise max_connections, or run fewer workers.")
    else:
        yield Finding(NAME, Status.OK, words)


def _pooler(connection: Connection) -> Iterator[Finding]:
    """Detect PgBouncer and the like: they report another process id than the server's process has."""
    driver: Any = connection.connection.driver_connection
    if driver.info.backend_pid == connection.scalar(text("select pg_backend_pid()")):
        return
    words = "there is a pooler in front of it"
    if driver.prepare_threshold is None:
        yield Finding(NAME, Status.OK, f"{words}, and no statement is prepared")
    else:
        yield Finding(
            NAME,
            Status.WARNING,
            f"{words}, and statements are prepared",
            "In transaction mode most poolers lose them (PgBouncer before 1.21, or without max_prepared_statements): "
            "add ?prepare_threshold=none to TAGONCE_DATABASE_URL.",
        )


def _skew(connection: Connection) -> float:
    before = time.time()
    there = float(connection.scalar(text("select extract(epoch from clock_timestamp())")) or 0.0)
    return there - (before + time.time()) / 2
