"""Who may open the review page, and what an answer allows a browser to do."""

from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from tagonce.web.security import SMALL_BODY, Access, Guard, is_loopback

TOKEN = "a-token-that-nobody-guesses"  # noqa: S105


async def page(request: Request) -> Response:
    return PlainTextResponse(f"{request.url.path} {len(await request.body())}")


def client(access: Access, base_url: str = "http://127.0.0.1:8765") -> TestClient:
    routes = [Route("/{rest:path}", page, methods=["GET", "POST"])]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, access=access)])
    return TestClient(app, base_url=base_url, follow_redirects=False)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST", "localhost.", "[::1]:8765", "127.0.0.2:1"]
)
def test_this_machine_is_answered(host: str) -> None:
    assert client(Access()).get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8765", "[", ""])
def test_a_name_that_resolves_to_this_machine_is_not(host: str) -> None:
    """DNS rebinding: the browser sends the name of the page that it was led to."""
    answer = client(Access()).get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "127.0.0.1" in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:8765"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8765"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8765"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({}, 403),
    ],
)
def test_only_a_page_of_ours_changes_something(headers: dict[str, str], status: int) -> None:
    assert client(Access()).post("/save", headers=headers, content=b"x").status_code == status


def test_bodies_are_bounded_and_say_how_long_they_are() -> None:
    asked = client(Access(largest_body=2 * SMALL_BODY))
    ours = {"sec-fetch-site": "same-origin"}
    assert asked.post("/save", headers=ours, content=bytes(SMALL_BODY)).status_code == 200
    assert asked.post("/save", headers=ours, content=bytes(SMALL_BODY + 1)).status_code == 413
    assert asked.post("/try", headers=ours, content=bytes(2 * SMALL_BODY)).status_code == 200
    assert asked.post("/try", headers=ours, content=bytes(2 * SMALL_BODY + 1)).status_code == 413
    assert asked.post("/save", headers=ours, content=iter([b"no length"])).status_code == 411
    both = ours | {"transfer-encoding": "chunked", "content-length": "1"}
    assert asked.post("/save", headers=both, content=b"x").status_code == 411


@pytest.mark.parametrize("ask", [lambda asked: asked.get("/"), lambda asked: asked.get("/", headers={"host": "evil"})])
def test_answers_and_refusals_allow_a_browser_next_to_nothing(ask: Callable[[TestClient], Response]) -> None:
    headers = ask(client(Access())).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"  # or a form says nothing of where it comes from
    assert headers["cache-control"] == "no-store"


def test_a_token_opens_the_page_once_and_leaves_the_address() -> None:
    asked = client(Access(TOKEN), "http://tagger.internal:8765")
    assert asked.get("/").status_code == 403
    assert asked.get("/?token=wrong").status_code == 403
    first = asked.get(f"/tags?find=a%26b&token={TOKEN}")
    assert (first.status_code, first.headers["location"]) == (303, "/tags?find=a%26b")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert asked.get("/tags").status_code == 200  # the client keeps the cookie
    assert asked.post("/save", content=b"x").status_code == 403  # the cookie alone changes nothing
    assert asked.post("/save", content=b"x", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_without_the_token_nothing_is_answered() -> None:
    asked = client(Access(TOKEN))
    for path in ("/thumb/1", "/static/review.js", "/nothing"):
        assert asked.get(path).status_code == 403
    assert asked.post("/label", headers={"sec-fetch-site": "same-origin"}, content=b"x").status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_addresses_of_this_machine_alone_need_no_token(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "tagger.internal"])  # noqa: S104
def test_all_others_do(host: str) -> None:
    assert not is_loopback(host)
