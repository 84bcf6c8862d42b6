"""Tags an uploaded picture with the model, and stores nothing."""

from typing import Any

import numpy as np
from anyio import to_thread
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from db.errors import ImageError, SettingsError
from db.policy.policies import Cut
from db.read.tag_batches import TagBatch, kept_mask
from db.scores import SCALE
from tagonce.web.shell import shell, site_of
from tagonce.web.state.site import Site
from tagonce.web.templating import page
from tagonce.web.view import View, thresholds_of

MOST = 100
"""Tags in the table."""


def show(request: Request) -> Response:
    """`/try`"""
    return _page(request, {})


async def run(request: Request) -> Response:
    """`POST /try`: a file."""
    async with request.form(max_files=1, max_fields=10) as form:
        file = form.get("file")
        data = await file.read() if isinstance(file, UploadFile) else b""
        name = (file.filename or "") if isinstance(file, UploadFile) else ""
    return await to_thread.run_sync(_run, request, data, name, limiter=site_of(request).tagger.turn)


def _run(request: Request, data: bytes, name: str) -> Response:
    site, view = site_of(request), View.of(request.query_params)
    if not data:
        raise SettingsError("No picture came along. Choose a file first.")
    with site.database.read() as connection:
        cut = thresholds_of(connection, site.model, site.tags, view).cut
    try:
        found = site.tagger.probabilities(data)
    except ImageError as error:
        return _page(request, {"file": name, "error": str(error)}, status=400)
    kept = _kept(site, found, cut)
    ranked = sorted((pair for pair in enumerate(found) if site.has_name[pair[0]]), key=lambda pair: -pair[1])[:MOST]
    rows = [(tag_id, site.tags[tag_id].name, value, tag_id in kept) for tag_id, value in ranked]
    return _page(request, {"file": name, "rows": rows})


def _kept(site: Site, probabilities: list[float], cut: Cut) -> set[int]:
    """The tags that a cut would keep of the picture, if it were stored."""
    scores = np.array([int(value * SCALE) for value in probabilities], dtype=np.int16)
    stored = np.flatnonzero(scores >= site.model.floor)
    ranked = stored[np.argsort(-scores[stored].astype(np.int64), kind="stable")].astype(np.int32)
    one = TagBatch([0], [""], [None], [None], np.array([0, ranked.size]), ranked, scores[ranked])
    return set(ranked[kept_mask(one, cut)].tolist())


def _page(request: Request, values: dict[str, Any], status: int = 200) -> Response:
    site = site_of(request)
    view = View.of(request.query_params)
    blank = {"file": "", "rows": [], "error": ""}
    return page(
        "try.html",
        status,
        **shell(request, view, "/try"),
        **(blank | values),
        missing=site.tagger.missing,
        action=view.address("/try"),
    )
