"""Who gets an answer from `tagonce review`, and what may be asked. No browser: what a browser would never send, too."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

import pytest

from tests.fixtures.browser import Browsing
from tests.fixtures.command import Outcome
from tests.fixtures.review import Review, settle

FORM = "application/x-www-form-urlencoded"


def one_sentence(text: str) -> bool:
    """No trace of a program, and no address of a page of ours in it."""
    return "Traceback" not in text and 'File "' not in text and "sqlalchemy" not in text.lower()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.1", "", "[", "a b"]
)
def test_names_of_strangers_are_not_answered(demo_review: Review, host: str) -> None:
    """A page of theirs could have its name resolve to 127.0.0.1 (DNS rebinding)."""
    for path in ("/", "/thumb/1", "/static/review.js", "/tags"):
        answer = demo_review.ask(path, Host=host)
        assert answer.status in (400, 421)
        assert "chelsea" not in answer.text
    assert demo_review.ask("/label", b"image=1", Host=host, Origin=f"http://{host}").status in (400, 421)


def test_own_names_are_answered(demo_review: Review) -> None:
    port = demo_review.address.rpartition(":")[2]
    for host in ("localhost", f"localhost:{port}", "LOCALHOST", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert demo_review.ask("/", Host=host).status == 200


@pytest.mark.parametrize("path", ["/label", "/save", "/who", "/recount", "/try"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_pages_of_others_change_nothing(demo_review: Review, path: str, headers: dict[str, str]) -> None:
    answer = demo_review.ask(path, b"image=1&judge=1:right&drawn=random&name=x", Content_Type=FORM, **headers)
    assert answer.status == 403
    assert "did not come from a page of tagonce review" in answer.text


@pytest.mark.parametrize("path", ["/", "/tags", "/overview", "/thumb/1", "/static/review.js", "/nothing", "/save"])
def test_every_answer_says_what_a_browser_may_do_with_it(demo_review: Review, path: str) -> None:
    """No framing, no guessing of types, no referrer; errors are no exception."""
    answer = demo_review.ask(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers
    assert "server" not in answer.headers
    assert answer.headers["cache-control"]


def test_a_token_is_needed_where_others_can_reach_it(
    demo_review: Review, start_review: Callable[..., Review], browsing: Browsing
) -> None:
    """It is in the address that is printed, becomes a cookie, and leaves the address."""
    review = start_review(demo_review.database_url, "--host", "0.0.0.0")  # noqa: S104
    token = re.findall(r"token=([\w-]{20,})", review.opened)[0]
    for path in ("/", "/thumb/1", "/static/review.js", f"/?token={token[:-1]}", "/?token=", f"/?Token={token}"):
        refused = review.ask(path)
        assert refused.status == 403
        assert "token" in refused.text
        assert "chelsea" not in refused.text
    assert review.ask("/", Cookie=f"tagonce-1={token}; token={token}").status == 403
    assert review.ask("/label", b"x=1", Origin=review.address).status == 403

    answer = review.ask(f"/tags?t=0.3&token={token}&find=a%26b")
    assert answer.status == 303
    assert answer.headers["location"] == "/tags?t=0.3&find=a%26b"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert review.ask("/", Cookie=cookie.partition(";")[0]).status == 200
    assert review.ask("/label", b"x=1", Cookie=cookie.partition(";")[0], Origin="http://evil.example").status == 403

    page = browsing.page()
    page.goto(f"{review.address}/?token={token}&t=0.4")
    assert page.url == f"{review.address}/?t=0.4"
    page.locator('[name="t"]').fill("0.5")
    settle(page)
    page.get_by_role("link", name="Overview").click()
    page.wait_for_url("**/overview**")
    assert token not in page.content()


def test_a_token_of_ones_own_is_asked_for_on_loopback_too(
    demo_review: Review, start_review: Callable[..., Review]
) -> None:
    """`TAGONCE_REVIEW_TOKEN`: other users of the machine stay outside."""
    review = start_review(demo_review.database_url, TAGONCE_REVIEW_TOKEN="a-token-of-at-least-some-letters")  # noqa: S106 - a test's
    assert review.ask("/").status == 403
    assert "token=" in review.opened


@pytest.mark.parametrize(
    "path",
    [
        *("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd", "/static/%00"),
        *(
            "/static/%2Fetc%2Fpasswd",
            "/static/....//app.py",
            "/static/",
            "/static",
            "/../../etc/passwd",
            "//etc/passwd",
        ),
        *("/static/" + "a" * 300, "/static/%ff", "/templates/base.html", "/.env", "/tags.db", "/docs", "/openapi.json"),
        *("/thumb/../../etc/passwd", "/thumb/%2fetc%2fpasswd", "/thumb/1/../../app.py", "/thumb/-1", "/thumb/1.5"),
        *(
            "/thumb/0",
            "/thumb/chelsea.png",
            "/thumb/1%00",
            "/thumb/%D9%A3",
            "/thumb/" + "9" * 30,
            "/thumb/" + "9" * 6_000,
        ),
        *(
            "/preview/" + "9" * 20,
            "/image/9223372036854775808",
            "/tag/99999",
            "/tag/" + "9" * 25,
            "/tag/" + "9" * 6_000,
            "/tag/-1",
        ),
    ],
)
def test_nothing_but_pages_and_pictures_made_here_is_served(demo_review: Review, path: str) -> None:
    answer = demo_review.ask(path)
    assert answer.status in (307, 400, 404, 405, 414), answer.text[:300]
    assert "root:" not in answer.text
    assert "import" not in answer.text
    assert one_sentence(answer.text)


@pytest.mark.parametrize(
    "query",
    [
        *(
            "t=2",
            "t=abc",
            "t=-1",
            "t=nan",
            "t=inf",
            "t=1e-9",
            "t=0.00001",
            "t=35",
            "t=0.001",
            "t=" + "9" * 5000,
            "t=%00",
        ),
        *("profile=none", "profile=a@9999999999999999999999", "profile=@", "profile=%FF%FE", "profile=" + "x" * 3000),
        *("c.nothing=0.5", "c.=0.5", "tag.nothing=0.5", "tag.=0.5", "tag.cat=x", "c.leaf=1e400"),
        *("seed=x", "seed=1.5", "size=many", "sample=best", "sample=", "q=(((", "q=cat:7", "q=nothing", "q=cat:0.001"),
        *("q=" + "a" * 3000, "q=" + "(" * 1900, "q=-" * 900, "q=" + "cat+" * 480, "q=%00", "q=*", "q=" + "-" * 1999),
        "&".join(f"tag.x{number}=0.5" for number in range(500)),
    ],
)
def test_absurd_addresses_get_a_sentence(demo_review: Review, query: str) -> None:
    """Never the fault of the server; and what is in order, though odd, a page."""
    for path in ("/", "/tags", "/tag/3", "/compare", "/overview", "/image/1", "/try"):
        answer = demo_review.ask(f"{path}?{query}")
        assert answer.status in (200, 400), answer.text[-600:]
        assert one_sentence(answer.text)
        if answer.status != 200:
            sentence = re.findall(r'role="alert">(.*?)</p>', answer.text, re.DOTALL)
            assert sentence
            assert 10 < len(sentence[0]) < 6_000


@pytest.mark.parametrize(
    "query", ["seed=99999999999999999999", "seed=-5", "seed=0", "size=0", "size=99999999999", "size=-1"]
)
def test_numbers_without_measure_are_brought_to_one(demo_review: Review, query: str) -> None:
    assert demo_review.ask(f"/?{query}").status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/label", ""),
        ("/label", "image=1"),
        ("/label", "image=x&judge=1:right&drawn=random"),
        ("/label", "image=1&judge=1:perhaps&drawn=random"),
        ("/label", "image=1&judge=99999:right&drawn=random"),
        ("/label", "image=1&judge=-1:right&drawn=random"),
        ("/label", "image=1&judge=99999999999999999999:right&drawn=random"),
        ("/label", "image=99999999999999999999&judge=1:right&drawn=random"),
        ("/label", "image=99999&judge=1:right&drawn=random"),
        ("/label", "image=1&judge=1:right&drawn=guessed"),
        ("/label", "&".join(f"f{number}=1" for number in range(2_000))),
        ("/who", "name="),
        ("/who", "name=%20"),
        ("/who", "name=" + "x" * 101),
        ("/who", "name=a%0d%0aSet-Cookie:%20b=c"),
        ("/save", "name=mine"),
        ("/save", "name=&t=0.3"),
        ("/save", "name=a@b&t=0.3"),
        ("/save", "name=" + "x" * 5_000 + "&t=0.3"),
        ("/save", "name=x&t=0.3&profile=none"),
        ("/save", "name=x&c.none=0.3"),
        ("/save", "name=x%00y&t=0.3"),
        ("/save", "name=x%0d%0ay&t=0.3"),
        ("/save", "name=x%1b[31my&t=0.3"),
        ("/try", "file=x"),
    ],
)
def test_absurd_forms_get_a_sentence(demo_review: Review, path: str, body: str) -> None:
    answer = demo_review.ask(path, body.encode(), "POST", Origin=demo_review.address, Content_Type=FORM)
    assert 400 <= answer.status < 500, answer.text[-600:]
    assert one_sentence(answer.text)
    assert len(answer.text) > 10


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/json", "multipart/form-data", "multipart/form-data; boundary="]
)
@pytest.mark.parametrize("path", ["/label", "/save", "/who", "/try"])
def test_bodies_of_no_form_get_a_sentence(demo_review: Review, path: str, kind: str) -> None:
    answer = demo_review.ask(path, b'{"a": 1}' * 9, Origin=demo_review.address, Content_Type=kind)
    assert 400 <= answer.status < 500, answer.text[-600:]
    assert one_sentence(answer.text)


def test_bodies_are_bounded(demo_review: Review, start_review: Callable[..., Review]) -> None:
    """Small where a form is sent; as large as an image may be where one is tried; and a length has to be said."""
    own = {"Origin": demo_review.address, "Content-Type": FORM}
    assert demo_review.ask("/label", b"x" * 100_000, **own).status == 413
    assert demo_review.ask("/who", method="POST", **own, Transfer_Encoding="chunked").status in (400, 411)
    assert demo_review.ask("/who", b"name=x", **(own | {"Content-Length": "-5"})).status in (400, 411)
    review = start_review(demo_review.database_url, TAGONCE_MAX_BYTES="100000")
    large = {"Origin": review.address, "Content-Type": "multipart/form-data; boundary=x"}
    answer = review.ask("/try", b"x" * 100_001, **large)
    assert answer.status == 413
    assert "100,000 bytes" in answer.text


@pytest.mark.parametrize(
    "back",
    [
        "http://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "\t//evil.example",
        "/\t/evil.example",
        "/%0d%0aX: y",
        "/\r\nX-Y: z",
    ],
)
def test_no_form_leads_away(demo_review: Review, back: str) -> None:
    """Where it returns to is a page of ours."""
    body = urlencode({"name": "me", "back": back}).encode()
    answer = demo_review.ask("/who", body, Origin=demo_review.address, Content_Type=FORM)
    assert answer.status == 303
    place = answer.headers["location"]
    cleaned = re.sub(r"[\t\r\n]", "", place).replace("\\", "/")  # as browsers do
    assert urlsplit(urljoin(demo_review.address, cleaned)).netloc == urlsplit(demo_review.address).netloc
    assert "X-Y" not in answer.headers


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_other_methods_are_refused(demo_review: Review, method: str) -> None:
    answer = demo_review.ask("/", method=method, Origin=demo_review.address)
    assert 400 <= answer.status < 500 or answer.status == 501


def test_what_stands_in_the_log_is_no_search_and_no_token(demo_review: Review) -> None:
    demo_review.ask("/?q=somebody%27s+secret")
    assert "secret" not in demo_review.process.words()


def test_a_port_that_is_taken_and_an_address_that_is_none(
    demo_review: Review, tagonce: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Said in a sentence."""
    port = demo_review.address.rpartition(":")[2]
    for options in (("--port", port), ("--host", "203.0.113.7", "--port", "0"), ("--host", "no.such.host.invalid")):
        refused = tagonce("review", "--database", demo_review.database_url, *options)
        assert refused.code in (1, 2)
        assert "Traceback" not in refused.err
        assert "not available" in refused.err
    none = tagonce("review", "--database", f"sqlite:///{tmp_path / 'none.db'}", "--port", "0")
    assert none.code in (1, 2)
    assert "Traceback" not in none.err
