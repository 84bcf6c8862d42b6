"""Searches find the same images as a plain evaluation: from postings, by SQL, and from both; on both databases."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, select, update
from typer.testing import CliRunner, Result

from db.database import Database
from db.errors import SettingsError, ThresholdError
from db.ledger import gone, models, results
from db.ledger.images import Reference, register
from db.ledger.models import Model, Tag
from db.ledger.results import Prediction
from db.names.plural import counted
from db.names.uris import file_uri
from db.policy.policies import Cut, Policy, resolve
from db.postings.build import update_postings
from db.read.tag_batches import read_tag_batches
from db.schema import files, images
from db.scope import Gone
from db.scores import NEVER, SCALE, Scores
from db.search.execute import Hit, condition, count, scores_to_show, search
from db.search.query import And, Node, Not, Or, QueryError, Reaches, Under, Within, parse, quoted
from db.sql.scores.conditions import FEW
from tagonce.commands import index as index_command
from tagonce.commands import search as search_command
from tests.fixtures.examples import up_to
from tests.fixtures.indexed import Index, bring, straddle_blocks

Register = Callable[..., list[int]]
Row = dict[int, int]
"""The scores of an image, by tag id."""

IMAGES, FLOOR, INDEXED = 6, 100, 3500
WIDE = FEW + 20
"""Number of tags of a model, more than are compared one by one."""

# Few distinct scores, including the ends of the range, so that scores equal to a threshold are common.
some_scores = st.sampled_from([FLOOR, FLOOR + 1, 3499, 3500, 3501, SCALE - 1, SCALE]) | st.integers(FLOOR, SCALE)
some_tags = st.integers(0, 4) | st.integers(0, WIDE - 1)
some_rows = st.lists(st.dictionaries(some_tags, some_scores, max_size=12), min_size=IMAGES, max_size=IMAGES)
highs = st.just(NEVER) | some_scores


@st.composite
def some_leaves(draw: st.DrawFn) -> Node:
    """No, one, a few or many tags, with one threshold or one for each."""
    few = st.sets(some_tags, max_size=4)
    many = st.integers(FEW + 1, WIDE).map(lambda number: set(range(number)))
    tag_ids = tuple(sorted(draw(few | st.sets(some_tags, min_size=1, max_size=1) | many)))
    if draw(st.booleans()):
        lows = (draw(some_scores),) * len(tag_ids)
    else:
        lows = tuple(draw(st.lists(some_scores, min_size=len(tag_ids), max_size=len(tag_ids))))
    return Reaches(tag_ids, lows, draw(highs))


some_places = st.sampled_from(["", "s3://b/000", "s3://b/0001", "s3://c"]).map(Under)
some_facts = st.builds(Within, st.just("width"), st.none() | st.integers(639, 641), st.just(641))
some_trees = st.recursive(
    some_leaves() | some_places | some_facts,
    lambda parts: (
        parts.map(Not)
        | st.lists(parts, min_size=1, max_size=3).map(tuple).map(And)
        | st.lists(parts, min_size=1, max_size=3).map(tuple).map(Or)
    ),
    max_leaves=6,
)
thoroughly = hypothesis_settings(
    max_examples=up_to(60), deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow]
)


def is_true(node: Node, row: Row, uri: str) -> bool:
    """Whether a query is true for an image, by a plain evaluation."""
    match node:
        case Reaches():
            pairs = zip(node.tag_ids, node.lows, strict=True)
            return any(tag in row and low <= row[tag] < node.high for tag, low in pairs)
        case Under():
            return uri.startswith(node.prefix)
        case Within():
            return (node.low or 0) <= 640 < node.high
        case Not():
            return not is_true(node.part, row, uri)
        case And():
            return all(is_true(part, row, uri) for part in node.parts)
        case Or():
            return any(is_true(part, row, uri) for part in node.parts)


def store(database: Database, model: Model, ids: list[int], rows: list[Row]) -> None:
    """Store scores like workers: by ascending score, ties by tag id."""
    done = []
    for image_id, row in zip(ids, rows, strict=True):
        tags = np.array(sorted(row, key=lambda tag: (row[tag], tag)), np.int16)
        scores = Scores(tags, np.array([row[tag] for tag in tags.tolist()], np.int16))
        done.append(Prediction(image_id, "1", 10, 640, 480, "jpeg", b"h" * 32, scores))
    with database.write() as connection:
        results.save(connection, model.id, done, [])


def found(connection: Connection, model: Model, tree: Node, **options: Any) -> list[int]:
    return [hit.image_id for hit in search(connection, model, tree, **options)]


@pytest.fixture
def wide_model(database: Database) -> Model:
    with database.write() as connection:
        return models.register(
            connection,
            name="wide",
            weights_sha256="w",
            spec={},
            tag_list=[Tag(f"tag_{number:02}", ["general", "artist"][number % 2]) for number in range(WIDE)],
            floor=FLOOR,
            default_threshold=INDEXED,
        )


# ── the images found ──


@pytest.fixture
def straddling(database: Database, registered: Register) -> list[int]:
    """Images in two blocks, and one before them that no model has tagged."""
    straddle_blocks(database)
    return registered(IMAGES)


@pytest.mark.parametrize("index", Index)
def test_a_search_finds_what_a_straight_evaluation_finds(
    database: Database, wide_model: Model, straddling: list[int], index: Index
) -> None:
    """Random queries over random scores, streamed, counted, and as a condition of an export."""
    ids = straddling
    uris = [f"s3://b/{position:04}" for position in range(IMAGES)]
    everything = Cut(np.full(WIDE, FLOOR, np.int16), FLOOR)

    @thoroughly
    @given(some_rows, st.lists(some_trees, min_size=1, max_size=4))
    def check(rows: list[Row], trees: list[Node]) -> None:
        store(database, wide_model, ids, rows)
        bring(database, wide_model, index, INDEXED)
        for tree in trees:
            expected = [one for one, row, uri in zip(ids, rows, uris, strict=True) if is_true(tree, row, uri)]
            with database.read() as connection:
                assert count(connection, wide_model, tree) == len(expected)
                assert found(connection, wide_model, tree) == expected
                where = condition(connection, wide_model, tree)
                kept = read_tag_batches(connection, wide_model, everything, where=where)
                assert [one for batch in kept for one in batch.image_ids] == expected

    check()


@pytest.mark.parametrize("index", Index)
def test_a_tag_alone_asks_for_its_own_threshold(
    database: Database, wide_model: Model, straddling: list[int], index: Index
) -> None:
    """Queries with a threshold by tag, some of them off; also for all tags of a pattern or a category."""
    ids = straddling
    with database.read() as connection:
        tags = models.tag_names(connection, wide_model.id)

    @thoroughly
    @given(some_rows, st.lists(some_scores | st.just(NEVER), min_size=WIDE, max_size=WIDE))
    def check(rows: list[Row], lows: list[int]) -> None:
        store(database, wide_model, ids, rows)
        bring(database, wide_model, index, FLOOR)
        cut = resolve(wide_model, tags, Policy(tags={tag.name: low for tag, low in zip(tags, lows, strict=True)}))
        kept = [{tag for tag, score in row.items() if score >= lows[tag]} for row in rows]
        with database.read() as connection:
            for query, wanted in (
                ("tag_00", lambda tags: 0 in tags),
                ("-tag_01", lambda tags: 1 not in tags),
                ("*", bool),
                ("tag_0* -tag_00", lambda tags: bool(tags & set(range(10))) and 0 not in tags),
                ("-category:artist", lambda tags: not any(tag % 2 for tag in tags)),
            ):
                expected = [one for one, tags_ in zip(ids, kept, strict=True) if wanted(tags_)]
                assert found(connection, wide_model, parse(query, wide_model, tags, cut)) == expected, query

    check()


def test_each_model_answers_for_itself(
    database: Database, model: Model, other_model: Model, registered: Register
) -> None:
    """Also if only one model has an index. An image that a model has not tagged is not found for it."""
    ids = registered(3)
    store(database, model, ids, [{0: 9000}, {0: 100}, {}])
    store(database, other_model, ids[:2], [{0: 1}, {0: 9000}])
    update_postings(database, model)
    tree = Reaches((0,), (5000,))
    with database.read() as connection:
        assert found(connection, model, tree) == [ids[0]]
        assert found(connection, other_model, tree) == [ids[1]]
        assert found(connection, model, Not(tree)) == ids[1:]
        assert found(connection, other_model, Not(tree)) == [ids[0]]


def test_names_cannot_become_sql(database: Database, registered: Register) -> None:
    """An unknown name is an error, and a tag of such a name is found like any other."""
    evil = ["'); drop table images; --", '" or 1=1 --', "%s %(x)s :x ? {}", "\\'; --", "0]) or true or (1"]
    ids = registered(2)
    with database.write() as connection:
        model = models.register(
            connection,
            name="'; drop table tags; --",
            weights_sha256="",
            spec={},
            tag_list=[Tag(name, name) for name in evil],
            floor=FLOOR,
            default_threshold=INDEXED,
        )
    store(database, model, ids, [dict.fromkeys(range(len(evil)), 9000), {}])
    update_postings(database, model)
    with database.read() as connection:
        tags = models.tag_names(connection, model.id)
        cut = resolve(model, tags)
        for name in evil:
            with pytest.raises(QueryError, match="there is no tag"):
                parse(quoted(name + "x"), model, tags, cut)
            for query in (quoted(name), f"category:{quoted(name)}:0.5", f"{quoted(name)} under:{quoted('s3://b/')}"):
                assert found(connection, model, parse(query, model, tags, cut)) == ids[:1]
            tree = parse(f"under:{quoted(name)}", model, tags, cut)
            assert tree == Under(name)
            assert found(connection, model, tree) == []


# ── order ──


@pytest.mark.parametrize("index", Index)
def test_hits_are_sorted_by_a_tag(database: Database, model: Model, straddling: list[int], index: Index) -> None:
    """In either direction, ties in the order of registration. Images whose score is not stored come last."""
    ids = straddling
    everything = Not(Reaches((), ()))

    @thoroughly
    @given(st.lists(st.none() | some_scores, min_size=IMAGES, max_size=IMAGES), st.none() | st.integers(1, IMAGES + 1))
    def check(scores: list[int | None], limit: int | None) -> None:
        store(database, model, ids, [{1: 5000} | ({} if score is None else {0: score}) for score in scores])
        bring(database, model, index, INDEXED)
        stored = [(score, one) for score, one in zip(scores, ids, strict=True) if score is not None]
        without = [one for score, one in zip(scores, ids, strict=True) if score is None]
        falling = [one for _, one in sorted(stored, key=lambda pair: (-pair[0], pair[1]))] + without
        rising = [one for _, one in sorted(stored)] + without
        with database.read() as connection:
            assert found(connection, model, everything, limit=limit) == ids[:limit]
            assert found(connection, model, everything, sort=0, limit=limit) == falling[:limit]
            assert found(connection, model, everything, sort=0, descending=False, limit=limit) == rising[:limit]
            hits = search(connection, model, everything, sort=0)
            told = {hit.image_id: hit.probability for hit in hits}
        assert told == {one: None if score is None else score / SCALE for score, one in zip(scores, ids, strict=True)}

    check()


def test_a_hit_tells_of_the_image_and_of_the_tags_asked_for(
    database: Database, model: Model, registered: Register
) -> None:
    """Named tags whenever they are stored; of the tags that a pattern matches, those that make the query true."""
    ids = registered(2)
    store(database, model, ids, [{0: 9000, 1: 200, 4: 3500, 5: 3600, 6: 3400, 7: 9999}, {0: 9500}])
    tree = And(
        (Reaches((0,), (5000,)), Not(Reaches((1,), (3000,))), Or((Reaches((4, 5, 6), (3500,) * 3), Under("s3:"))))
    )
    with database.read() as connection:
        hits = list(search(connection, model, tree, sort=0, show=scores_to_show(tree, model, 20)))
        assert hits == [
            Hit(ids[1], "s3://b/0001", 640, 480, 0.95, ((0, 0.95),)),
            Hit(ids[0], "s3://b/0000", 640, 480, 0.9, ((0, 0.9), (5, 0.36), (4, 0.35), (1, 0.02))),
        ]
        (hit,) = search(connection, model, Reaches((7,), (FLOOR,)))
        assert hit == Hit(ids[0], "s3://b/0000", 640, 480, None)


# ── the index ──


def test_what_is_stored_after_the_index_is_found_too(database: Database, model: Model, registered: Register) -> None:
    ids = registered(2)
    for score, expected in ((9000, ids), (3499, []), (3500, ids)):
        store(database, model, ids, [{3: score}] * 2)
        with database.read() as connection:
            assert found(connection, model, Reaches((3,), (3500,))) == expected
        update_postings(database, model)


@pytest.mark.parametrize("index", Index)
def test_images_that_are_gone_are_found_on_request(
    database: Database, wide_model: Model, straddling: list[int], index: Index
) -> None:
    store(database, wide_model, straddling, [{0: 5000 + number} for number in range(IMAGES)])
    bring(database, wide_model, index, INDEXED)
    some = straddling[1:5]
    with database.write() as connection:
        gone.mark(connection, some)
    tree = And((Reaches((0,), (4000,)), Not(Reaches((1,), (4000,)))))
    others = [one for one in straddling if one not in some]
    for scope, expected in ((Gone.EXCLUDE, others), (Gone.ONLY, some), (Gone.INCLUDE, straddling)):
        with database.read(gone=scope) as connection:
            assert found(connection, wide_model, tree) == expected
            assert found(connection, wide_model, tree, sort=0) == expected[::-1]
            assert count(connection, wide_model, tree) == len(expected)


def test_images_deleted_by_hand_are_not_found(database: Database, model: Model, registered: Register) -> None:
    ids = registered(3)
    store(database, model, ids, [{0: 9000}] * 3)
    update_postings(database, model)
    with database.write() as connection:
        connection.execute(delete(images).where(images.c.id == ids[1]))
    with database.read() as connection:
        assert found(connection, model, Reaches((0,), (5000,))) == [ids[0], ids[2]]


# ── the commands ──


Run = Callable[..., Result]


@pytest.fixture
def run(database: Database) -> Run:
    """Runs the two commands like the command line. Wrong usage and wrong queries raise."""
    app = typer.Typer()
    app.command("search", cls=search_command.SearchCommand)(search_command.command)
    app.command("index")(index_command.command)
    url = database.engine.url.render_as_string(hide_password=False)

    def start(*arguments: str) -> Result:
        result = CliRunner().invoke(app, arguments, env={"TAGONCE_DATABASE_URL": url, "COLUMNS": "200"})
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return start


@pytest.fixture
def three(database: Database, model: Model, registered: Register) -> list[str]:
    """Uris of three images: the score of tag_00 decreases and that of tag_01 increases from one to the next."""
    ids = registered(3)
    store(database, model, ids, [{0: 9000, 1: 300}, {0: 6000, 1: 4000}, {0: 3500, 1: 8000}])
    return [f"s3://b/{position:04}" for position in range(3)]


@pytest.mark.parametrize(
    ("arguments", "places"),
    [
        (("tag_00",), [0, 1, 2]),
        (("-tag_01",), [0]),
        (("tag_00", "-tag_01:0.5", "--limit", "5"), [0, 1]),
        (("-n", "1", "tag_00"), [0]),
        (("tag_00 -tag_01:0.5",), [0, 1]),
        (("--", "-tag_01"), [0]),
        (("( tag_00:0.8 ~ tag_01:0.5 )", "--sort=tag_01"), [2, 0]),
        (("tag_00", "--sort", "tag_01:asc"), [0, 1, 2]),
        (("tag_00", "-s", "tag_01:desc", "-n", "2"), [2, 1]),
        (("tag_00", "-t", "0.5"), [0, 1]),
        (("*", "--tag-threshold", "tag_00=off"), [1, 2]),
        (("tag_00", "--under", "s3://b/0001"), [1]),
        (("tag_00", "-under:s3://b/0001"), [0, 2]),
        (("model:tiny", "tag_01:0.9"), []),
    ],
)
def test_paths_are_what_a_pipe_gets(run: Run, three: list[str], arguments: tuple[str, ...], places: list[int]) -> None:
    """One path per line. A word that begins with - needs no escape. Standard error has the number of hits."""
    result = run("search", *arguments)
    assert result.stdout == "".join(f"{three[place]}\n" for place in places)
    assert counted(len(places), "image") in result.stderr
    assert result.exit_code == 0


def test_names_that_are_no_text_survive_as_paths(database: Database, run: Run, model: Model) -> None:
    """Local files are paths, each terminated by NUL for xargs."""
    path = "/a b/caf\udce9\n.jpg"
    with database.write() as connection:
        ids = register(connection, [Reference(file_uri(path), "1", 10)], model.id)
    store(database, model, ids, [{0: 9000}])
    assert run("search", "-0", "tag_00").stdout_bytes == b"/a b/caf\xe9\n.jpg\0"
    assert r"/a b/caf?" in run("search", "-f", "table", "tag_00").stdout


def test_for_people_and_for_programs(run: Run, three: list[str]) -> None:
    lines = run("search", "tag_00:0.5", "-tag_01:0.5", "--sort", "tag_01", "--json").stdout.splitlines()
    size = {"width": 640, "height": 480}
    assert [json.loads(line) for line in lines] == [
        {"uri": three[1], **size, "probability": 0.4, "tags": {"tag_00": 0.6, "tag_01": 0.4}},
        {"uri": three[0], **size, "probability": 0.03, "tags": {"tag_00": 0.9, "tag_01": 0.03}},
    ]
    table = run("search", "tag_00", "-n", "1", "--format", "table")
    assert table.stdout.splitlines()[1].split() == [three[0], "640x480", "tag_00", "0.9000"]
    assert "1 image, and there are more" in table.stderr
    assert run("search", "tag_00:0.5", "--count").stdout == "2\n"
    assert json.loads(run("search", "tag_00:0.5", "--count", "--json").stdout) == {"images": 2}
    none = run("search", "tag_02")
    assert (none.exit_code, none.stdout) == (0, "")
    assert "0 images" in none.stderr


def test_wrong_usage_is_said(run: Run, three: list[str]) -> None:
    assert "No such option: --limti" in run("search", "tag_00", "--limti", "5").stderr
    with pytest.raises(SettingsError, match="^There is no query"):
        run("search")
    with pytest.raises(SettingsError, match="given twice"):
        run("search", "model:tiny tag_00", "--model", "tiny")
    with pytest.raises(SettingsError, match="^--sort: there is no tag 'tag_0x'; did you mean"):
        run("search", "tag_00", "--sort", "tag_0x:asc")
    with pytest.raises(QueryError, match="there is no tag 'tag_0x'"):
        run("search", "tag_00", "-tag_0x")
    with pytest.raises(ThresholdError, match="floor"):
        run("search", "tag_00", "-t", "0.001")


def test_the_index_is_made_and_removed(database: Database, run: Run, model: Model, three: list[str]) -> None:
    """At 0.1, or another floor."""
    assert "tiny: there is no index." in run("index", "--drop").stderr
    assert "there are no postings" in run("search", "tag_00", "--explain").stdout
    assert "tiny: index 1 block built in" in run("index").stderr
    assert "index already up to date" in run("index").stderr
    assert "postings from 0.1 on" in run("search", "tag_00", "--explain").stdout
    assert "1 block built" in run("index", "--floor", "0.2").stderr
    assert "already up to date" in run("index").stderr
    explained = run("search", "tag_00:0.15", "--explain").stdout
    assert "postings from 0.2 on" in explained
    assert "thresholds below theirs" in explained
    with pytest.raises(SettingsError, match="--floor 0.001 is below the floor of tiny, 0.01"):
        run("index", "--floor", "0.001")
    with pytest.raises(SettingsError, match="--drop"):
        run("index", "--floor", "0.2", "--drop")
    assert "tiny: index removed." in run("index", "--drop").stderr


def test_facts_of_files_are_asked_for(database: Database, run: Run, model: Model, three: list[str]) -> None:
    """As in boorus; a fact that is not known matches nothing, and its negation everything."""
    with database.write() as connection:
        values = {"width": 100, "height": 3000, "bytes": 2 << 20, "format": "png"}
        one = select(images.c.id).where(images.c.uri == three[1]).scalar_subquery()
        connection.execute(update(files).where(files.c.image_id == one).values(values))
        connection.execute(
            update(images).where(images.c.uri == three[1]).values(added_at=datetime(2025, 12, 31, 23, tzinfo=UTC))
        )
        connection.execute(delete(files).where(files.c.image_id == one + 1))
    for query, places in {
        "width:100": [1],
        "width:>100": [0],
        "-width:>100": [1, 2],
        "width:..640": [0, 1],
        "width:101..": [0],
        "height:>=3000 width:<=100": [1],
        "bytes:2mb": [1],
        "bytes:<0.5kb": [0],
        "format:PNG": [1],
        "format:jpg": [0],
        "-format:jpg": [1, 2],
        "date:2025": [1],
        "date:2025-12 tag_00": [1],
        "date:..2025-12-31": [1],
        "date:>2025-12-31 tag_00": [0, 2],
        "date:>=2026-01": [0, 2],
    }.items():
        for state in ("stored", "indexed"):
            if state == "indexed":
                update_postings(database, model)
            assert run("search", query).stdout.splitlines() == [three[place] for place in places], query
    said = run("search", "-format:jpg date:2025 ( tag_00 ~ tag_0*:0.2..0.5 )", "--explain").stdout
    assert "not (the format is jpeg) and the date is at least 2025-01-01" in said
    assert "(tag_00 has a probability of at least 0.35 or one of tag_00, tag_01, tag_02" in said
    for wrong, needs in (
        ("width:x", "a whole number"),
        ("date:2025-13", "a date"),
        ("format:", "the name"),
        ("width:=>1", "one of"),
    ):
        with pytest.raises(QueryError, match=f"{wrong.partition(':')[0]}: needs {needs}"):
            run("search", wrong)
