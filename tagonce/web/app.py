"""The application: the address of each page and its module in `tagonce/web/pages`.

    /               gallery                           gallery.py
    /tags           all tags                          tags.py
    /tag/17         one tag                           tag.py
    /image/12       one image                         image.py
    /compare        what changed, and saving it       compare.py
    /try            a picture, by the model           try_picture.py
    /overview       how far it is, what failed        overview.py
    /label          right, wrong                      labelling.py
    /thumb/12       a thumbnail                       picture.py

Pages are plain functions that run in threads, each with a database connection. Handlers that read a form or a file are
coroutines.
"""

from pathlib import Path

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from db.errors import DatabaseError, SettingsError, TagonceError, ThresholdError, TransientError
from tagonce.web.pages import compare, gallery, image, labelling, overview, picture, tag, tags, try_picture
from tagonce.web.security import Access, Guard, guarded
from tagonce.web.shell import page_handler, shell
from tagonce.web.state.site import Site
from tagonce.web.templating import page
from tagonce.web.view import View

_STATIC = Path(__file__).with_name("static")


class _IdConvertor(Convertor[int]):
    """An id: an integer that fits into the database."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", _IdConvertor())


def create_app(site: Site, access: Access) -> Starlette:
    """An ASGI application over one model of one database."""
    app = Starlette(
        routes=[
            Route("/", page_handler(gallery.gallery)),
            Route("/tags", page_handler(tags.tags)),
            Route("/tag/{tag_id:id}", page_handler(tag.tag)),
            Route("/image/{image_id:id}", page_handler(image.image)),
            Route("/thumb/{image_id:id}", picture.thumbnail),
            Route("/preview/{image_id:id}", picture.preview),
            Route("/compare", page_handler(compare.compare)),
            Route("/save", compare.save, methods=["POST"]),
            Route("/label", labelling.label, methods=["POST"]),
            Route("/who", labelling.who, methods=["POST"]),
            Route("/recount", overview.recount, methods=["POST"]),
            Route("/try", page_handler(try_picture.show), methods=["GET"]),
            Route("/try", try_picture.run, methods=["POST"]),
            Route("/overview", page_handler(overview.overview)),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={TagonceError: _failed, HTTPException: _refused, Exception: _unforeseen},  # type: ignore[dict-item]
    )
    app.state.site = site
    return app


def _failed(request: Request, error: TagonceError) -> Response:
    """A page with the message of an error."""
    wrong = isinstance(error, SettingsError | ThresholdError)
    status = 400 if wrong else 503 if isinstance(error, TransientError | DatabaseError) else 500
    return _error(request, status, str(error))


def _refused(request: Request, error: HTTPException) -> Response:
    return _error(request, error.status_code, error.detail)


def _unforeseen(request: Request, _raised: Exception) -> Response:
    """Starlette raises the error again, so it is logged. This response does not pass through the guard."""
    sentence = "An unexpected error occurred. The log of tagonce review has the details."
    return guarded(_error(request, 500, sentence))


def _error(request: Request, status: int, sentence: str) -> Response:
    try:
        view = View.of(request.query_params)
    except TagonceError:
        view = View()
    return page("error.html", status, **shell(request, view, ""), sentence=sentence)
