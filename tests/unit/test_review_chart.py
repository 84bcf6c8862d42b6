"""What is drawn of a histogram, and what templates do with names."""

import pytest

from db.read.histograms import Histogram
from db.scores import NEVER
from tagonce.web.parts.chart import HEIGHT, WIDTH, chart_of
from tagonce.web.templating import environment

COUNTS = [900, 0, 30, 1]


def test_bars_stand_where_the_scores_are_and_none_where_there_are_none() -> None:
    chart = chart_of(Histogram(1000, COUNTS), 5000, [])
    assert [bar.x for bar in chart.bars] == [0, WIDTH / 2, 3 * WIDTH / 4]
    assert [bar.kept for bar in chart.bars] == [False, True, True]
    assert chart.bars[0].height == HEIGHT
    assert chart.bars[0].height > chart.bars[1].height > chart.bars[2].height > 0
    assert {bar.y + bar.height for bar in chart.bars} == {HEIGHT}
    assert chart.bars[1].title == "30 from 0.5 to 0.75"
    assert (chart.line, chart.most) == (WIDTH / 2, 900)


def test_a_bar_that_the_line_cuts_is_not_kept() -> None:
    assert [bar.kept for bar in chart_of(Histogram(1000, COUNTS), 5001, []).bars] == [False, False, True]


def test_a_tag_that_is_off_has_no_line_and_one_without_scores_no_bar() -> None:
    assert chart_of(Histogram(1000, COUNTS), NEVER, []).line is None
    assert chart_of(Histogram(1000, [0, 0]), 100, []).bars == []


def test_marks_stand_where_they_are_once_each() -> None:
    assert chart_of(Histogram(1000, COUNTS), 100, [5010, 5000, 5010]).marks == [WIDTH / 2, WIDTH * 0.501]


@pytest.mark.parametrize(
    ("template", "value", "expected"),
    [
        ("{{ x }}", "<b>&\"'", "&lt;b&gt;&amp;&#34;&#39;"),
        ("{{ x }}", "a\udcffb\u202ec\x00\x1b", "a?b?c??"),
        ("{{ x|sent }}", 'a\u3000b"<', "a\u3000b&#34;&lt;"),
        ("{{ x|breakable }}", "long_<i>_name\u202e", "long_<wbr>&lt;i&gt;_<wbr>name?"),
        ("{{ x|name }}", "file:///a/b%20%FF%3Cb%3E.png", "b ?&lt;b&gt;.png"),
        ("{{ x|name }}", "s3://bucket/a/b%20.png", "b%20.png"),
        ("{{ x|folder }}", "s3://bucket/a/b.png", "s3://bucket/a"),
        ("{{ x|number }}", 1234567, "1,234,567"),
        ("{{ x|figure }}", float("nan"), "\N{EN DASH}"),
        ("{{ x|figure }}", 0.12345, "0.123"),
        ("{{ x|threshold }}", NEVER, "off"),
        ("{{ x|probability }}", 1, "0.0001"),
    ],
)
def test_what_is_written_is_harmless_and_for_people(template: str, value: object, expected: str) -> None:
    written = environment().from_string(template).render(x=value)
    assert written == expected
    written.encode()
