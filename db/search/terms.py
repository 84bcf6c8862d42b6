"""The words of a query, and the meaning of each word. The rules are in the docstring of `db.search.query`."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from db.arrays.types import Int16Array
from db.errors import SettingsError, ThresholdError
from db.ledger.models import Model
from db.names.vocabulary import WILDCARD, Vocabulary
from db.policy.policies import Cut, below_floor, unknown_name
from db.scores import NEVER, SCALE, to_probability, to_score
from db.search.facts import FACTS, parse_fact
from db.search.tree import And, BestIn, Node, Not, Or, Reaches, Under

Word = re.Match[str]

_WINDOW = 60
"""Characters of a query that are shown on either side of an error."""


class QueryError(SettingsError):
    """A query that cannot be parsed or answered. The message points at the character.

    Args:
        at: position of the character in `query`, 0-based; the length of the query for its end.
        what: the sentence.
    """

    def __init__(self, query: str, at: int, what: str) -> None:
        start = max(0, at - _WINDOW)
        shown = "".join(one if one.isprintable() else " " for one in query[start : at + _WINDOW])
        super().__init__(f"{what}\n  {shown}\n  {' ' * (at - start)}^")
        self.at = at


_KEYS = ("category", "model", "under", *FACTS)
_WORD = re.compile(
    rf"""(?P<sign>~?-?) (?P<key>(?:{"|".join(_KEYS)}):)? "(?P<name>(?:[^"\\]|\\.)*)" (?P<rest>\S*) | \S+""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_UNCLOSED = re.compile(rf"""~?-?(?:(?:{"|".join(_KEYS)}):)?(?=")""", re.IGNORECASE)
_SIGN = re.compile("~?-?")
_LIKE_A_THRESHOLD = re.compile(r"[0-9.<>]")


@dataclass(frozen=True, slots=True)
class Term:
    """The parts of a word."""

    word: Word
    sign: str
    key: str
    """One of `_KEYS`, or empty for a tag."""
    name: str
    name_at: int
    """Position in the query, 0-based."""
    literal: bool = False
    """Whether the name is quoted, so that `*` is no wildcard."""
    threshold: str | None = None
    threshold_at: int = 0


def words(query: str) -> list[Word]:
    """The words of a query, separated by white space outside of quotes."""
    return list(_WORD.finditer(query))


def sign_of(word: Word) -> str:
    """The sign before a word: `~`, `-`, `~-` or nothing."""
    found = _SIGN.match(word.group())
    return found.group() if found else ""


def keyed(word: Word, sign: str) -> Term | None:
    """A word as KEY:VALUE, quoted or not; None if it has no key. The value is not split further."""
    if word["name"] is not None:
        key = (word["key"] or "").rstrip(":").lower()
        at = word.start("name") - 1
        return Term(word, sign, key, _unescaped(word["name"]), at, literal=True) if key else None
    key, colon, value = word.group()[len(sign) :].partition(":")
    if not colon or key.lower() not in _KEYS:
        return None
    return Term(word, sign, key.lower(), value, word.end() - len(value))


def _unescaped(text: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", text)


class Leaves:
    """Converts single words to nodes."""

    def __init__(
        self, query: str, model: Model, vocabulary: Vocabulary, cut: Cut, prefix_of: Callable[[str], str]
    ) -> None:
        self._query = query
        self._model = model
        self._vocabulary = vocabulary
        self._cut = cut
        self._prefix_of = prefix_of

    def term(self, word: Word) -> Term:
        """Split a word into its parts.

        Raises:
            QueryError: the word is malformed.
        """
        if word["name"] is not None:
            return self._quoted_term(word)
        if unclosed := _UNCLOSED.match(word.group()):
            raise self._error(
                word.start() + unclosed.end(), 'This quote is never closed. Write a quote in a name as \\".'
            )
        longest = sign_of(word)
        for length in range(len(longest) + 1):
            body, at = word.group()[length:], word.start() + length
            plain = Term(word, longest[:length], "", body, at)
            if self._vocabulary.find(body):
                return plain
            if found := keyed(word, longest[:length]):
                return self._split_category(found) if found.key == "category" else found
            if self._vocabulary.find(body.rpartition(":")[0]):
                return _split(plain)
        if longest == word.group():
            raise self._error(word.start(), f"{longest} must be directly before a term or a group, without a space.")
        return self._split_unknown(plain)

    def node(self, term: Term) -> Node:
        """The node of a term, without its sign.

        Raises:
            QueryError: it names no tag or category, or its range cannot be answered.
            ThresholdError: it has no threshold, and the cut has a rule of another kind.
        """
        if term.key == "under":
            if not term.name:
                raise self._error(term.name_at, "under: needs a folder or an s3:// prefix.")
            return Under(self._prefix_of(term.name))
        if term.key in FACTS:
            try:
                return parse_fact(term.key, term.name)
            except ValueError as error:
                raise self._error(term.name_at, f"{term.key}: needs {error}, not {term.name!r}.") from None
        tag_ids, several = self._tag_ids(term)
        if term.threshold is None:
            return self._kept(term, tag_ids)
        low, high = self._ends(term.threshold, term.threshold_at)
        if low is not None:
            return _reaches(tag_ids, [low] * len(tag_ids), high)
        if several:
            raise self._error(
                term.threshold_at,
                f"A range without a lower end needs a single tag, and {term.name!r} matches several. "
                "To exclude images with any of them, negate a threshold: -*_hair:0.4",
            )
        # A score that is not stored is below the upper end, too: the negation of reaching it.
        return Not(_reaches(tag_ids, [high] * len(tag_ids)))

    def _quoted_term(self, word: Word) -> Term:
        sign, at = word["sign"], word.start("name") - 1
        term = keyed(word, sign) or Term(word, sign, "", _unescaped(word["name"]), at, literal=True)
        if not term.name:
            raise self._error(at, "There is nothing between these quotes.")
        if not (rest := word["rest"]):
            return term
        takes_none = term.key in ("model", "under", *FACTS)
        if not rest.startswith(":") or takes_none:
            ending = "A space" if takes_none else "A space, or a colon and a threshold,"
            raise self._error(word.start("rest"), f"{ending} must follow the closing quote.")
        return _with_threshold(term, term.name, rest[1:], word.start("rest") + 1)

    def _split_category(self, term: Term) -> Term:
        known = self._vocabulary.in_category(term.name) or ":" not in term.name
        return term if known else _split(term)

    def _split_unknown(self, term: Term) -> Term:
        """Split a word that is not the name of a tag: a pattern, or a mistake."""
        head, _colon, tail = term.name.rpartition(":")
        if not head or (WILDCARD in term.name and self._vocabulary.matching(term.name)):
            return term
        pattern = WILDCARD in head and self._vocabulary.matching(head)
        return _split(term) if pattern or _LIKE_A_THRESHOLD.match(tail) else term

    def _tag_ids(self, term: Term) -> tuple[tuple[int, ...], bool]:
        """(ids of the tags, whether the term can match several)."""
        if term.key == "category":
            if found := self._vocabulary.in_category(term.name):
                return found, True
            raise self._unknown(term, self._vocabulary.categories, "category")
        if found := self._vocabulary.find(term.name):
            return found, False
        if WILDCARD in term.name and not term.literal:
            if found := self._vocabulary.matching(term.name):
                return found, True
            raise self._error(term.name_at, f"{self._model.name}: no tag matches {term.name!r}.")
        raise self._unknown(term, self._vocabulary.names, "tag")

    def _unknown(self, term: Term, known: Sequence[str], what: str) -> QueryError:
        hint = ""
        if not term.literal and (term.name.startswith("(") or term.name.endswith(")")):
            hint = " The brackets of a group need white space around them."
        return self._error(term.name_at, f"{self._model.name}: {unknown_name(term.name, known, what)}{hint}")

    def _kept(self, term: Term, tag_ids: Sequence[int]) -> Node:
        """The policy keeps one of the tags."""
        scores, groups = self._in_force(term), self._cut.groups
        single = [tag_id for tag_id in tag_ids if groups is None or groups[tag_id] < 0]
        parts: list[Node] = [_reaches(single, scores[single].tolist())] if single else []
        if groups is None:
            return parts[0] if parts else Reaches((), ())
        for number in sorted({int(groups[tag_id]) for tag_id in tag_ids} - {-1}):
            named = [tag_id for tag_id in tag_ids if groups[tag_id] == number]
            members = np.flatnonzero(groups == number).tolist()
            some, group = (_reaches(ids, scores[ids].tolist()) for ids in (named, members))
            # An image keeps one of the whole group if it reaches one. Else the first condition is for the index by tag.
            decided = len(some.tag_ids) in (0, len(group.tag_ids))
            parts.append(some if decided else And((some, BestIn(some.tag_ids, group))))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _in_force(self, term: Term) -> Int16Array:
        """(tags,) the thresholds of the policy."""
        if self._cut.top is not None or self._cut.mcut is not None:
            rule, word = "top" if self._cut.top is not None else "MCut", term.word.group()
            raise ThresholdError(
                f"{word} has no threshold, and the policy has a {rule} rule, which cannot decide a single tag because "
                f"it depends on the other tags of an image. Write {word}:0.5, or omit the profile."
            )
        return self._cut.scores

    def _ends(self, text: str, at: int) -> tuple[int | None, int]:
        """(low, high) in scores, for low <= score < high. None for an open lower end."""
        low: int | None
        if text.startswith(("<=", ">")) and not text.startswith(">="):
            raise self._error(at, "A probability must be compared with >= or <, since scores are rounded down.")
        if text.startswith("<"):
            low, high = None, self._score(text[1:], at + 1)
        elif ".." in text:
            low_text, _dots, high_text = text.partition("..")
            if not low_text and not high_text:
                raise self._error(at, "A range needs a lower end, an upper end or both: 0.2..0.4")
            low = self._score(low_text, at) if low_text else 0
            high = self._score(high_text, at + len(low_text) + 2) if high_text else NEVER
            high = NEVER if high == SCALE else high
            low = None if high_text and not low else low
        else:
            skipped = 2 if text.startswith(">=") else 0
            low, high = self._score(text[skipped:], at + skipped), NEVER
        self._check_ends(low, high, at)
        return low, high

    def _check_ends(self, low: int | None, high: int, at: int) -> None:
        asked = high if low is None else low
        if asked < self._model.floor:
            raise self._error(at, below_floor(self._model, f"{to_probability(asked):g}"))
        if low is not None and low >= high:
            raise self._error(at, "The lower end of a range must be below its upper end.")

    def _score(self, text: str, at: int) -> int:
        if not re.fullmatch(r"[0-9.]{1,20}", text):
            raise self._error(at, f"A threshold is a number between 0 and 1, not {text!r}.")
        try:
            return to_score(text)
        except ThresholdError as error:
            raise self._error(at, str(error)) from None

    def _error(self, at: int, what: str) -> QueryError:
        return QueryError(self._query, at, what)


def _split(term: Term) -> Term:
    """Split NAME:THRESHOLD at the last colon."""
    head, _colon, tail = term.name.rpartition(":")
    return _with_threshold(term, head, tail, term.name_at + len(head) + 1)


def _with_threshold(term: Term, name: str, threshold: str, at: int) -> Term:
    return replace(term, name=name, threshold=threshold, threshold_at=at)


def _reaches(tag_ids: Sequence[int], lows: Sequence[int], high: int = NEVER) -> Reaches:
    possible = [(tag_id, low) for tag_id, low in zip(tag_ids, lows, strict=True) if low < high]
    return Reaches(tuple(tag_id for tag_id, _ in possible), tuple(low for _, low in possible), high)
