"""Stores and deletes labels."""

import re
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from db.errors import SettingsError
from db.truth import labels
from db.truth.labels import Drawn
from tagonce.web.shell import REVIEWER, fields, in_a_thread, path_back, reviewer, site_of

_YEAR = 365 * 24 * 3600
_VERDICTS = {"right": True, "wrong": False, "none": None}
_ID = re.compile("[0-9]{1,18}")
_JUDGE = re.compile(f"(?P<tag>[0-9]{{1,5}}):(?P<verdict>{'|'.join(_VERDICTS)})")


async def label(request: Request) -> Response:
    """`POST /label`: image, drawn, judge (`17:right`, `17:wrong`, or `17:none`, which takes it back), back."""
    return await in_a_thread(request, _label, await fields(request))


async def who(request: Request) -> Response:
    """`POST /who`: the name of labels from this browser."""
    said = await fields(request)
    name = said.get("name", "").strip()
    labels.check_name(name)
    response = RedirectResponse(path_back(said), 303)
    response.set_cookie(REVIEWER, quote(name), max_age=_YEAR, httponly=True, samesite="lax")
    return response


def _label(request: Request, said: dict[str, str]) -> Response:
    site, by = site_of(request), reviewer(request)
    image_id, tag_id, is_right, drawn = _judgement(said)
    if tag_id >= len(site.tags):
        raise SettingsError(f"{site.model.name} has no tag {tag_id}.")
    with site.database.write() as connection:
        if is_right is None:
            labels.forget(connection, site.model, image_id, tag_id, by=by)
        else:
            labels.save(connection, site.model, image_id, tag_id, is_right, by=by, drawn=drawn)
    return RedirectResponse(f"{path_back(said)}#card-{image_id}", 303)


def _judgement(said: dict[str, str]) -> tuple[int, int, bool | None, Drawn]:
    found = _JUDGE.fullmatch(said.get("judge", "")), _ID.fullmatch(said.get("image", ""))
    drawn = said.get("drawn", "")
    if not found[0] or not found[1] or drawn not in list(Drawn):
        raise SettingsError("A label names an image, a tag with right or wrong, and how the picture was drawn.")
    return int(found[1][0]), int(found[0]["tag"]), _VERDICTS[found[0]["verdict"]], Drawn(drawn)
