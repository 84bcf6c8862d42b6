"""Models and their tags, as they are registered."""

from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, text

from db.database import Database
from db.ledger import models
from db.ledger.models import Tag
from db.sql.formats import array_format

TAGS = [Tag("cat"), Tag("1girl", "general"), Tag(""), Tag('quote"\\ %s :x', "日本語 🐈"), Tag("cat", "copyright")]


def test_tags_come_back_and_are_written_in_one_statement(database: Database) -> None:
    """The driver would send a statement for each row, and a model has thousands."""
    many: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, _values: Any, _context: Any, executemany: bool) -> None:
        if executemany:
            many.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    with database.write() as connection:
        model = models.register(
            connection, name="m", weights_sha256="0", spec={}, tag_list=TAGS, floor=100, default_threshold=3500
        )
        assert models.tag_names(connection, model.id) == TAGS
    assert many == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("kind", ["smallint", "integer"])
@pytest.mark.parametrize("values", [[], [0], [-1, 2, 300, -32768, 32767]])
def test_arrays_are_encoded_as_the_server_does(database: Database, kind: str, values: list[int]) -> None:
    with database.read() as connection:
        sent = connection.scalar(text(f"select array_send(cast(:values as {kind}[]))"), {"values": values})
    oid = array_format.INT2_OID if kind == "smallint" else array_format.INT4_OID
    assert array_format.encode([np.array(values, dtype=np.int32)], oid) == [bytes(sent)]
