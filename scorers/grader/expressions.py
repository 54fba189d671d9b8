"""Reads an arithmetic or algebraic expression, plain or LaTeX, into a small tree. Evaluates nothing.

The grammar is closed: a character or command outside it is `Unreadable`, and so is
anything too long or too deep, so that hostile text costs no more than a scan.
"""

# ruff: noqa: SIM905 - word lists read better as words
from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["FUNCTIONS", "Expr", "Unreadable", "choose_sign", "parse_expression"]

MAX_CHARS, MAX_TOKENS, MAX_DEPTH, MAX_EXPONENT = 1_000, 400, 40, 4_000

FUNCTIONS = frozenset(
    ("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log lg exp sqrt abs floor ceil").split()
)
_GREEK = frozenset(
    (
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho "
        "sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell"
    ).split()
)
_WORDS = {"pi": "pi", "infinity": "oo", "inf": "oo", "oo": "oo", "infty": "oo"}
_CLOSERS = {"(": ")", "{": "}", "[": "]", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "\\lvert": "\\rvert"}
_TOKEN = re.compile(
    r"(\s*)(?:(\d+\.\d+[eE]\+?-?\d{1,5}(?![\d.])|\d+(?:\.\d+)?(?:[eE](?:-?|\+(?=\d\d))\d{1,5}(?![\d.]))?|\.\d+)"
    r"|(\\[A-Za-z]+|\\.)|([A-Za-z]+)|(\*\*|\S))"
)


class Unreadable(ValueError):
    """The text is no expression of this grammar."""


@dataclass(frozen=True, slots=True)
class Expr:
    """One node. `op` is "num", "sym", "+", "*", "^", "call" or "pm" (plus or minus its argument).

    `places` counts the decimals of a number written with a point (None: an exact number).
    """

    op: str
    args: tuple[Expr, ...] = ()
    name: str = ""
    value: Fraction = Fraction(0)
    places: int | None = None


_MINUS_ONE = Expr("num", value=Fraction(-1))


def parse_expression(text: str) -> Expr:
    """The tree of `text`; raises `Unreadable`."""
    if len(text) > MAX_CHARS:
        raise Unreadable("too long")
    parser = _Parser(_tokens(text))
    tree = parser.sum()
    if parser.peek():
        raise Unreadable(f"unexpected {parser.peek()!r}")
    return tree


def choose_sign(tree: Expr, sign: int) -> Expr:
    """`tree` with every plus-or-minus read as plus (1) or as minus (-1)."""
    if tree.op == "pm":
        inner = choose_sign(tree.args[0], sign)
        return inner if sign * tree.value > 0 else _negate(inner)
    if not tree.args:
        return tree
    return Expr(tree.op, tuple(choose_sign(arg, sign) for arg in tree.args), tree.name)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    kind: str  # "number", "command", "name", "sign" or "" at the end
    spaced: bool = False


_END = _Token("", "")


def _tokens(text: str) -> list[_Token]:
    found = []
    for match in _TOKEN.finditer(text):
        space, number, command, word, sign = match.groups()
        spaced = bool(space)
        if number:
            found.append(_Token(number, "number", spaced))
        elif command:
            if command not in ("\\ ", "\\,", "\\;", "\\!"):
                found.append(_Token(command, "command", spaced))
        elif word:
            found += _name_tokens(word, spaced)
        else:
            found.append(_Token("^" if sign == "**" else sign, "sign", spaced))
        if len(found) > MAX_TOKENS:
            raise Unreadable("too many tokens")
    return found


def _name_tokens(word: str, spaced: bool) -> list[_Token]:
    """A known word stays whole; up to three other letters are a product of variables."""
    if word in FUNCTIONS:
        return [_Token("\\" + word, "command", spaced)]
    if word in _WORDS:
        return [_Token(_WORDS[word], "name", spaced)]
    if word in _GREEK:
        return [_Token(word, "name", spaced)]
    if len(word) > 3:
        raise Unreadable(f"a word: {word}")
    return [_Token(letter, "name", spaced and not i) for i, letter in enumerate(word)]


def _negate(tree: Expr) -> Expr:
    if tree.op == "num":
        return Expr("num", value=-tree.value, places=tree.places)
    return Expr("*", (_MINUS_ONE, tree))


def _parse_number(text: str) -> Expr:
    mantissa, _, exponent = text.lower().partition("e")
    if abs(int(exponent or 0)) > MAX_EXPONENT:
        raise Unreadable("exponent too large")
    places = len(mantissa.partition(".")[2]) if "." in mantissa else None
    if places is not None and exponent:
        places -= int(exponent)
    value = Fraction(int(mantissa)) if mantissa.isdecimal() else Fraction(mantissa)
    if exponent:
        value *= Fraction(10) ** int(exponent)
    return Expr("num", value=value, places=places)


class _Parser:
    """Recursive descent over the tokens; every method leaves `self.at` behind what it read."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens, self.at, self.depth, self.bars = tokens, 0, 0, 0

    def token(self, ahead: int = 0) -> _Token:
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else _END

    def peek(self) -> str:
        return self.token().text

    def take(self, expected: str = "") -> _Token:
        token = self.token()
        if not token.text or (expected and token.text != expected):
            raise Unreadable(f"expected {expected or 'more'}")
        self.at += 1
        return token

    def sum(self) -> Expr:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("too deep")
        terms = [self.product()] if self.peek() not in ("\\pm", "\\mp", "±") else []
        while self.peek() in ("+", "-", "\\pm", "\\mp", "±"):
            sign = self.take().text
            term = self.product()
            if sign == "-":
                term = _negate(term)
            elif sign != "+":
                term = Expr("pm", (term,), value=Fraction(-1 if sign == "\\mp" else 1))
            terms.append(term)
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Expr("+", tuple(terms))

    def product(self) -> Expr:
        factors = [self.factor()]
        while True:
            token = self.token()
            if token.text in ("*", "\\cdot", "\\times", "\\ast"):
                self.take()
                factors.append(self.factor())
            elif token.text in ("/", "\\div"):
                self.take()
                factors.append(Expr("^", (self.factor(), _MINUS_ONE)))
            elif self.starts_factor(token):
                if token.kind == "number":
                    raise Unreadable("a number behind a factor")
                factors.append(self.power())
            else:
                return factors[0] if len(factors) == 1 else Expr("*", tuple(factors))

    def starts_factor(self, token: _Token) -> bool:
        if token.kind in ("number", "name"):
            return True
        if token.kind == "command":
            name = token.text[1:]
            opens = token.text in _CLOSERS or token.text in ("\\frac", "\\binom", "\\infty", "\\pi")
            return opens or name in FUNCTIONS or name in _GREEK
        return token.text in ("(", "{", "[") or (token.text == "|" and not self.bars)

    def factor(self) -> Expr:
        sign = 1
        while self.peek() in ("-", "+"):
            sign *= -1 if self.take().text == "-" else 1
        tree = self.power()
        return tree if sign > 0 else _negate(tree)

    def power(self) -> Expr:
        base = self.postfix(self.primary())
        if self.peek() != "^":
            return base
        self.take()
        return self.postfix(Expr("^", (base, self.exponent())))

    def exponent(self) -> Expr:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("too deep")
        tree = self.factor()
        self.depth -= 1
        return tree

    def postfix(self, tree: Expr) -> Expr:
        while True:
            text = self.peek()
            if text in ("!", "%"):
                self.take()
                tree = Expr("call", (tree,), "factorial" if text == "!" else "percent")
            elif text in ("°", "\\degree"):
                self.take()
                tree = Expr("call", (tree,), "degrees")
            elif text == "^" and self.degree_mark():
                tree = Expr("call", (tree,), "degrees")
            else:
                return tree

    def degree_mark(self) -> bool:
        for mark in (["^", "\\circ"], ["^", "{", "\\circ", "}"]):
            if [self.token(i).text for i in range(len(mark))] == mark:
                self.at += len(mark)
                return True
        return False

    def primary(self) -> Expr:
        token = self.take()
        if token.kind == "number":
            return self.mixed(_parse_number(token.text), token.text)
        if token.kind == "name":
            return Expr("sym", name=token.text + self.subscript())
        if token.text == "|":
            self.bars += 1
            tree = self.sum()
            self.bars -= 1
            self.take("|")
            return Expr("call", (tree,), "abs")
        if token.text in _CLOSERS:
            bars, self.bars = self.bars, 0
            tree = self.sum()
            self.bars = bars
            self.take(_CLOSERS[token.text])
            name = {"\\lfloor": "floor", "\\lceil": "ceil", "\\lvert": "abs"}.get(token.text)
            return Expr("call", (tree,), name) if name else tree
        if token.kind == "command":
            return self.command(token.text[1:])
        raise Unreadable(f"unexpected {token.text!r}")

    def mixed(self, whole: Expr, text: str) -> Expr:
        """`whole`, or whole plus a proper fraction written behind it (2\\frac12, 2 1/2)."""
        if self.peek() == "_":
            raise Unreadable("a number in some base")
        if not text.isdigit():
            return whole
        start = self.at
        if self.peek() == "\\frac":
            self.take()
            top, bottom = self.argument(), self.argument()
        elif self.token().kind == "number" and self.token().spaced and self.token(1).text == "/":
            top = _parse_number(self.take().text)
            self.take("/")
            if self.token().kind != "number":
                raise Unreadable("a number behind a number")
            bottom = _parse_number(self.take().text)
        else:
            return whole
        if top.op == bottom.op == "num" and top.value.denominator == 1 and 0 < top.value < bottom.value:
            return Expr("num", value=whole.value + top.value / bottom.value)
        self.at = start
        return whole

    def subscript(self) -> str:
        if self.peek() != "_":
            return ""
        self.take()
        name = self.take().text
        if name == "{":
            name = ""
            while self.peek() != "}":
                name += self.take().text
            self.take()
        if not name.isalnum():
            raise Unreadable("a subscript that is no name")
        return f"_{{{name}}}" if len(name) > 1 else f"_{name}"

    def argument(self) -> Expr:
        """One TeX argument: a braced group, or a single token (a single digit of a number)."""
        token = self.token()
        if token.kind == "number" and len(token.text) > 1:
            self.tokens[self.at] = _Token(token.text[1:], "number")
            if not (token.text[0].isdigit() and token.text[1:].isdigit()):
                raise Unreadable("an argument that is no digit")
            return _parse_number(token.text[0])
        if token.text == "{":
            return self.primary()
        if token.kind in ("number", "name"):
            self.take()
            return _parse_number(token.text) if token.kind == "number" else Expr("sym", name=token.text)
        return self.primary()

    def command(self, name: str) -> Expr:
        if name == "frac":
            top, bottom = self.argument(), self.argument()
            return Expr("*", (top, Expr("^", (bottom, _MINUS_ONE))))
        if name == "binom":
            return Expr("call", (self.argument(), self.argument()), "binomial")
        if name in ("infty", "pi"):
            return Expr("sym", name="oo" if name == "infty" else "pi")
        if name in _GREEK:
            return Expr("sym", name=name + self.subscript())
        if name == "sqrt":
            return self.root()
        if name in FUNCTIONS:
            return self.call(name)
        raise Unreadable(f"unknown command {name}")

    def root(self) -> Expr:
        index = Expr("num", value=Fraction(2))
        if self.peek() == "[":
            self.take()
            index = self.sum()
            self.take("]")
        inner = self.primary()
        return Expr("^", (inner, Expr("^", (index, _MINUS_ONE))))

    def call(self, name: str) -> Expr:
        base = power = None
        while self.peek() in ("_", "^"):
            if self.take().text == "_":
                base = self.argument() if self.peek() == "{" else self.primary()
            else:
                power = self.exponent()
        if power == _MINUS_ONE and name in ("sin", "cos", "tan"):
            name, power = "arc" + name, None
        if self.peek() in ("(", "{", "["):
            inner = self.primary()
        else:
            factors = [self.power()]
            while self.starts_factor(self.token()) and self.token().text[1:] not in FUNCTIONS:
                factors.append(self.power())
            inner = factors[0] if len(factors) == 1 else Expr("*", tuple(factors))
        if inner.op == "call" and inner.name == "degrees":
            inner = Expr("*", (inner.args[0], Expr("sym", name="pi"), Expr("num", value=Fraction(1, 180))))
        tree = Expr("call", (inner,), {"log": "ln"}.get(name, name))
        if name == "lg":
            base, tree = Expr("num", value=Fraction(10)), Expr("call", (inner,), "ln")
        if base is not None:
            tree = Expr("*", (tree, Expr("^", (Expr("call", (base,), "ln"), _MINUS_ONE))))
        return tree if power is None else Expr("^", (tree, power))
