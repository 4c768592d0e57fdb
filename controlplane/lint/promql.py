"""PromQL taken apart: selectors, joins, and the same expression without what makes it empty on purpose; pure.

Called by `static` and `live`. It knows the grammar's shape (precedence, matching, modifiers), not its types: whether a
function exists is Prometheus's to say.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>(?:\s+|\#[^\n]*)+)
    |(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`[^`]*`)
    |(?P<number>0[xX][0-9a-fA-F]+|(?:\d+(?:ms|[smhdwy]))+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<name>[a-zA-Z_:][\w:]*)
    |(?P<range>\[[^\[\]]*\])
    |(?P<sign>=~|!~|==|!=|>=|<=|[-+*/%^<>=(){},@])""",
    re.VERBOSE,
)
_AGGREGATES = frozenset((
    "sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile", "count_values",
    "limitk", "limit_ratio",
))  # fmt: skip
_COMPARISONS = frozenset(("==", "!=", ">", "<", ">=", "<="))
_LEVELS: tuple[frozenset[str], ...] = (
    frozenset(("or",)), frozenset(("and", "unless")), _COMPARISONS, frozenset(("+", "-")),
    frozenset(("*", "/", "%", "atan2")),
)  # fmt: skip
"""Operators that bind loosest first; `^` binds tighter, and to the right."""
_SCALARS = frozenset(("scalar", "time", "pi"))
_NUMBERS = frozenset(("inf", "nan"))
_ABSENT = frozenset(("absent", "absent_over_time"))
_MATCHERS = frozenset(("=", "!=", "=~", "!~"))
_DEPTH = 50
"""Brackets in one another: ten frames each, of the thousand that Python has."""


class NotPromqlError(ValueError):
    """A text that is no PromQL; says what was met, and where."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """One label matcher."""

    label: str
    operator: str
    value: str
    """Unquoted."""
    text: str
    """As written."""

    @property
    def wants(self) -> tuple[str, ...]:
        """The values it asks for one by one; none where it excludes, or is more than a list of words."""
        if self.operator == "=":
            return (self.value,)
        words = tuple(re.sub(r"\\(.)", r"\1", word) for word in self.value.split("|"))
        plain = all(re.fullmatch(r"(?:[^\\.+*?()\[\]{}^$]|\\.)*", word) for word in self.value.split("|"))
        return words if self.operator == "=~" and plain else ()


@dataclass(frozen=True, slots=True)
class Selector:
    """Series by name and labels, without range, offset or `@`."""

    name: str
    """Empty where a matcher on `__name__` chooses it."""
    matchers: tuple[Matcher, ...]

    def __str__(self) -> str:
        """Write it as PromQL."""
        return f"{self.name}{{{','.join(m.text for m in self.matchers)}}}"

    def without(self, *gone: Matcher) -> "Selector":
        """Return it with some matchers dropped."""
        return Selector(self.name, tuple(m for m in self.matchers if m not in gone))


@dataclass(frozen=True, slots=True)
class Literal:
    """A number or a string."""

    text: str
    is_number: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """Something with a range, a subquery, an offset or an `@` behind it."""

    of: "Node"
    text: str
    """What stands behind it."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an aggregation."""

    name: str
    grouping: str
    """`by (...)` or `without (...)` as written; empty where there is none."""
    arguments: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Minus:
    """A sign before something."""

    sign: str
    of: "Node"


@dataclass(frozen=True, slots=True)
class Binary:
    """Two sides and what joins them."""

    operator: str
    has_bool: bool
    matching: str
    """`on (...) group_left (...)` as written; empty where there is none."""
    left: "Node"
    right: "Node"


Node = Selector | Literal | Moved | Call | Minus | Binary


def parse(text: str) -> Node:
    """Take an expression apart.

    Raises:
        NotPromqlError: when it is none.
    """
    parser = _Parser(_tokens(text))
    node = parser.expression(0)
    if parser.kind != "end":
        raise NotPromqlError(f"`{parser.text}` is one too many, at character {parser.at}")
    return node


def selectors(node: Node) -> Iterator[Selector]:
    """Give every selector of an expression, in order; one that is written twice comes twice."""
    if isinstance(node, Selector):
        yield node
    for part in parts(node):
        yield from selectors(part)


def parts(node: Node) -> tuple[Node, ...]:
    """Return what an expression is directly made of."""
    if isinstance(node, Call):
        return node.arguments
    if isinstance(node, Binary):
        return node.left, node.right
    return (node.of,) if isinstance(node, Moved | Minus) else ()


def joins(node: Node) -> Iterator[Binary]:
    """Give every place where the labels of two vectors must agree for a result, innermost first."""
    for part in parts(node):
        yield from joins(part)
    if isinstance(node, Binary) and node.operator not in ("or", "unless") and is_vector(node.left, node.right):
        yield node


def is_vector(*nodes: Node) -> bool:
    """Tell whether all of these have series, as a number or a string has not."""
    return all(_is_vector(node) for node in nodes)


def _is_vector(node: Node) -> bool:
    if isinstance(node, Literal):
        return False
    if isinstance(node, Call):
        return node.name not in _SCALARS
    if isinstance(node, Binary):
        return _is_vector(node.left) or _is_vector(node.right)
    return _is_vector(node.of) if isinstance(node, Moved | Minus) else True


def is_range(node: Node) -> bool:
    """Tell whether it is a range of samples, which cannot be asked for by itself in a panel or a rule."""
    return isinstance(node, Moved) and (node.text.startswith("[") or is_range(node.of))


def write(node: Node) -> str:
    """Write an expression as PromQL."""
    return _write(node, relax=False)


def relaxed(node: Node) -> str:
    """Write an expression without what makes it empty on purpose.

    A comparison with a number gives its other side, one of two vectors keeps the join and drops the filter, `unless`
    gives its left side, `absent` gives 1, and `offset` and `@` are left out. What is still empty then is empty by
    mistake, or for want of data.
    """
    return _write(node, relax=True)


def _write(node: Node, *, relax: bool) -> str:
    if isinstance(node, Selector):
        return str(node) if node.matchers else node.name
    if isinstance(node, Literal):
        return node.text
    if isinstance(node, Moved):
        inner = _write(node.of, relax=relax)
        if relax and not node.text.startswith("["):
            return inner  # What it was an hour ago is no question of what it is made of.
        return f"{inner if isinstance(node.of, Selector | Call | Moved) else f'({inner})'}{node.text}"
    if isinstance(node, Minus):
        return f"{node.sign}({_write(node.of, relax=relax)})"
    if isinstance(node, Call):
        if relax and node.name in _ABSENT:
            return "vector(1)"
        return f"{node.name} {node.grouping}({', '.join(_write(a, relax=relax) for a in node.arguments)})"
    return _write_binary(node, relax=relax)


def _write_binary(node: Binary, *, relax: bool) -> str:
    left, right = _write(node.left, relax=relax), _write(node.right, relax=relax)
    operator = f"{node.operator} bool" if node.has_bool else node.operator
    if relax and node.operator == "unless":
        return left
    if relax and node.operator in _COMPARISONS and not node.has_bool:
        if not is_vector(node.right):
            return left
        if not is_vector(node.left):
            return right
        operator = f"{node.operator} bool"
    return f"({left}) {operator} {node.matching} ({right})"


def _tokens(text: str) -> list[tuple[str, str, int]]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NotPromqlError(f"`{text[at : at + 12]}` at character {at} is no part of PromQL")
        if match.lastgroup != "space":
            found.append((match.lastgroup or "", match[0], at))
        at = match.end()
    return [*found, ("end", "the end", len(text))]


class _Parser:
    """Reads tokens once, left to right."""

    def __init__(self, tokens: list[tuple[str, str, int]]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    @property
    def kind(self) -> str:
        return self._tokens[self._next][0]

    @property
    def text(self) -> str:
        return self._tokens[self._next][1]

    @property
    def at(self) -> int:
        return self._tokens[self._next][2]

    def take(self, *wanted: str) -> str:
        """Return the next token's text and go on; it must be one of these, where any are named."""
        text = self.text
        if wanted and text not in wanted:
            raise NotPromqlError(f"`{text}` at character {self.at} should be {' or '.join(f'`{w}`' for w in wanted)}")
        if self.kind == "end":
            raise NotPromqlError("it ends too early")
        self._next += 1
        return text

    def expression(self, level: int) -> Node:
        """Read operators of a level and of all that bind tighter."""
        if level == len(_LEVELS):
            return self.signed()
        left = self.expression(level + 1)
        while self.kind in ("sign", "name") and self.text.lower() in _LEVELS[level]:
            operator = self.take().lower()
            has_bool, matching = self.matching()
            left = Binary(operator, has_bool, matching, left, self.expression(level + 1))
        return left

    def matching(self) -> tuple[bool, str]:
        """Read `bool`, `on (...)` and what may follow."""
        has_bool = self.kind == "name" and self.text.lower() == "bool"
        if has_bool:
            self.take()
        words = []
        while self.kind == "name" and self.text.lower() in ("on", "ignoring", "group_left", "group_right"):
            word = self.take().lower()
            words.append(f"{word} ({self.labels()})" if self.text == "(" and self.lists_labels() else word)
            if word in ("on", "ignoring") and not words[-1].endswith(")"):
                raise NotPromqlError(f"`{word}` at character {self.at} names no labels")
        return has_bool, " ".join(words)

    def lists_labels(self) -> bool:
        """Tell whether the bracket ahead holds label names alone, and no expression."""
        ahead = self._next + 1
        while self._tokens[ahead][0] == "name" or self._tokens[ahead][1] == ",":
            ahead += 1
        after = self._tokens[min(ahead + 1, len(self._tokens) - 1)]
        return self._tokens[ahead][1] == ")" and after[0] != "end" and after[1] not in (")", ",")

    def labels(self) -> str:
        self.take("(")
        found = []
        while self.text != ")":
            found.append(self.take())
            if self.text != ")":
                self.take(",")
        self.take(")")
        return ", ".join(found)

    def signed(self) -> Node:
        if self.kind == "sign" and self.text in ("+", "-"):
            return Minus(self.take(), self.signed())
        left = self.moved()
        if self.text == "^":
            self.take()
            has_bool, matching = self.matching()
            return Binary("^", has_bool, matching, left, self.signed())
        return left

    def moved(self) -> Node:
        """Read a part and the ranges, offsets and times behind it."""
        node = self.part()
        while True:
            if self.kind == "range":
                node = Moved(node, self.take())
            elif self.kind == "name" and self.text.lower() == "offset":
                self.take()
                sign = self.take() if self.text == "-" else ""
                node = Moved(node, f" offset {sign}{self.take()}")
            elif self.text == "@":
                self.take()
                moment = self.take()
                node = Moved(node, f" @ {moment}{self.take('(') + self.take(')') if self.text == '(' else ''}")
            else:
                return node

    def part(self) -> Node:
        self._depth += 1
        if self._depth > _DEPTH:
            raise NotPromqlError(f"more than {_DEPTH} parts stand in one another")
        try:
            return self.part_within()
        finally:
            self._depth -= 1

    def part_within(self) -> Node:
        if self.text == "(" and self.kind == "sign":
            self.take()
            node = self.expression(0)
            self.take(")")
            return node
        if self.kind in ("number", "string"):
            is_number = self.kind == "number"
            return Literal(self.take(), is_number)
        if self.text == "{":
            return Selector("", self.matchers())
        if self.kind != "name":
            raise NotPromqlError(f"`{self.text}` at character {self.at} stands where a value should")
        name = self.take()
        if name.lower() in _NUMBERS and self.text not in ("{", "("):
            return Literal(name, is_number=True)
        if name.lower() in _AGGREGATES and (self.text == "(" or self.text.lower() in ("by", "without")):
            return self.aggregate(name.lower())
        if self.text == "(":
            return Call(name, "", self.arguments())
        return Selector(name, self.matchers() if self.text == "{" else ())

    def aggregate(self, name: str) -> Call:
        grouping = self.grouping()
        arguments = self.arguments()
        return Call(name, grouping or self.grouping(), arguments)

    def grouping(self) -> str:
        if self.kind == "name" and self.text.lower() in ("by", "without"):
            return f"{self.take().lower()} ({self.labels()}) "
        return ""

    def arguments(self) -> tuple[Node, ...]:
        self.take("(")
        found = []
        while self.text != ")" or self.kind == "string":
            found.append(self.expression(0))
            if self.text != ")":
                self.take(",")
        self.take(")")
        return tuple(found)

    def matchers(self) -> tuple[Matcher, ...]:
        self.take("{")
        found = []
        while self.text != "}":
            label = self.take()
            operator = self.take(*sorted(_MATCHERS))
            if self.kind != "string":
                raise NotPromqlError(f"`{self.text}` at character {self.at} should be a string")
            said = self.take()
            found.append(Matcher(label, operator, _unquoted(said), f"{label}{operator}{said}"))
            if self.text != "}":
                self.take(",")
        self.take("}")
        return tuple(found)


def _unquoted(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    return re.sub(r"\\(U[0-9a-fA-F]{8}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", _unescaped, text[1:-1])


def _unescaped(found: re.Match[str]) -> str:
    word = found[1]
    if len(word) > 1 and (number := int(word[1:], 16)) < 0x110000:
        return chr(number)
    return {"n": "\n", "t": "\t", "r": "\r"}.get(word, word)
