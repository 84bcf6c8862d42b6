"""HTML from templates. Every value is escaped, and printed without control characters."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from db.names.plural import counted
from db.policy.policies import to_threshold
from db.scores import to_probability
from producer.uris import path_or_uri
from tagonce.output.ui import printable

_BREAK = Markup("_<wbr>")


@cache
def environment() -> Environment:
    """The templates, with the filters for numbers and names."""
    made = Environment(
        loader=PackageLoader("tagonce.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters |= {
        "name": _name,
        "folder": _folder,
        "breakable": _breakable,
        "sent": Markup.escape,  # a value that the browser sends back, unchanged
        "number": lambda value: f"{value:,}",
        "probability": lambda score: f"{to_probability(score):.4f}",
        "threshold": lambda score: str(to_threshold(score)),
        "share": lambda value: f"{value:.1%}",
        "figure": lambda value: "–" if value is None or value != value else f"{value:.3f}",  # noqa: PLR0124, RUF001 - NaN
        "plural": counted,
    }
    return made


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """The response with a rendered page."""
    return HTMLResponse(environment().get_template(template).render(values), status)


def _shown(value: Any) -> Any:
    """Make a value printable. Names of files need not be text, and text may hold characters that change the direction
    of writing. For display only: values that a browser sends back go through `sent`.

    Jinja calls it for every value of a page, thousands of times: nearly all are no text, or are printable as they are.
    """
    if not isinstance(value, str) or value.isprintable() or isinstance(value, Markup):
        return value
    return "\n".join(printable(line) for line in value.split("\n"))


def _name(uri: str) -> str:
    """The last part of the name of an image."""
    return path_or_uri(uri).rpartition("/")[2] or uri


def _folder(uri: str) -> str:
    """The part before it."""
    return path_or_uri(uri).rpartition("/")[0]


def _breakable(name: str) -> Markup:
    """A tag that may wrap after each `_`."""
    return escape(_shown(name)).replace("_", _BREAK)
