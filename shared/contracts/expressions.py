"""Expressions in declarations: Python's syntax, a short white list, columns in and float64 out.

Names are fields of the event. Arithmetic `+ - * / // % **`, comparisons (chains too), `and`, `or`, `not`, and
the functions in `FUNCTIONS`. Times are milliseconds since 1970 UTC. Every value is a float64; truth is 1.0 or
0.0, and any number but 0 counts as true. Null is NaN: it goes through arithmetic, and comparisons with it are
false, except that `!=` is true.
What Python would raise for (a division by zero, the logarithm of -1) becomes an infinity or NaN, as in numpy.
"""

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[Any]]
Kind = Literal["number", "boolean", "time", "string", "other"]
Compute = Callable[[Columns, int], Floats]

MAX_CHARS: Final = 2_000
"""A declaration's expression is for people to read; the parser's stack is safe far beyond it."""
MAX_DEPTH: Final = 100
"""Far more than people write, far less than the interpreter's stack."""

_HOUR_MS = 3_600_000.0
_DAY_MS = 86_400_000.0


class ExpressionError(ValueError):
    """An expression that cannot be compiled; `fix` says what to write instead."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression over named columns of one length."""

    text: str
    fields: tuple[str, ...]
    guarded: frozenset[str]
    _compute: Compute = field(repr=False, compare=False)

    def evaluate(self, columns: Columns) -> Floats:
        """One float64 a row; `columns` holds at least `fields`, with NaN where a value is null.

        An expression without fields needs some column to know the number of rows.

        >>> compile_expression("x > 2", {"x": "number"}).evaluate({"x": np.array([1, 3])}).tolist()
        [0.0, 1.0]
        """
        rows = len(columns[self.fields[0]] if self.fields else next(iter(columns.values())))
        with np.errstate(all="ignore"):
            return self._compute(columns, rows)


def _hour(t: Floats) -> Floats:
    return np.mod(np.floor_divide(t, _HOUR_MS), 24.0)


def _weekday(t: Floats) -> Floats:
    return np.mod(np.floor_divide(t, _DAY_MS) + 3.0, 7.0)  # 1970-01-01 was a Thursday


def _fold(function: Any) -> Any:
    def folded(*values: Floats) -> Any:
        result = values[0]
        for value in values[1:]:
            result = function(result, value)
        return result

    return folded


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the language: how many arguments, what it does, its line in the manual."""

    least: int
    most: int
    apply: Any
    doc: str


FUNCTIONS: Final[Mapping[str, Function]] = {
    "hour": Function(1, 1, _hour, "hour of the day in UTC, 0 to 23, of a time field"),
    "weekday": Function(1, 1, _weekday, "day of the week in UTC, Monday 0 to Sunday 6, of a time field"),
    "log": Function(1, 1, np.log, "natural logarithm"),
    "log1p": Function(1, 1, np.log1p, "natural logarithm of 1 + x"),
    "exp": Function(1, 1, np.exp, "e to the power of x"),
    "sqrt": Function(1, 1, np.sqrt, "square root"),
    "abs": Function(1, 1, np.abs, "absolute value"),
    "min": Function(2, 8, _fold(np.minimum), "smallest of its arguments; null if one is null"),
    "max": Function(2, 8, _fold(np.maximum), "largest of its arguments; null if one is null"),
    "where": Function(
        3, 3, lambda c, a, b: np.where(c != 0.0, a, b), "second argument where the first is true"
    ),
    "is_null": Function(1, 1, np.isnan, "whether the value is null"),
}

_BINARY: Final[Mapping[type[ast.operator], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
_COMPARE: Final[Mapping[type[ast.cmpop], Any]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}


def compile_expression(text: str, fields: Mapping[str, Kind]) -> Expression:
    """Compile `text` over `fields`; ExpressionError says what is wrong and what to write.

    >>> weekend = compile_expression("weekday(t) >= 5", {"t": "time"})
    >>> weekend.fields, weekend.evaluate({"t": np.array([0, 2 * 86_400_000])}).tolist()
    (('t',), [0.0, 1.0])
    """
    compiler = _Compiler(fields)
    compute, _ = compiler.compile(_parse(text))
    return Expression(text, tuple(compiler.used), frozenset(compiler.guarded), compute)


def _parse(text: str) -> ast.expr:
    if len(text) > MAX_CHARS:
        raise ExpressionError(
            f"the expression has {len(text)} characters", f"write at most {MAX_CHARS}, or split it"
        )
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        where = f" at character {error.offset}" if error.offset else ""
        raise ExpressionError(
            f"`{text}` is not an expression: {error.msg}{where}",
            "write it as in Python, such as `hour(t) <= 6`",
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError("the expression cannot be parsed", "write a shorter, plain one") from error


class _Compiler:
    """Turns a syntax tree into one function of columns, noting the fields that it reads."""

    def __init__(self, fields: Mapping[str, Kind]) -> None:
        self.fields = fields
        self.used: dict[str, None] = {}
        self.guarded: set[str] = set()
        self.depth = 0

    def compile(self, node: ast.expr) -> tuple[Compute, Kind]:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(
                f"the expression is nested more than {MAX_DEPTH} deep", "write a flatter one, or split it"
            )
        compiled = self._node(node)
        self.depth -= 1
        return compiled

    def _node(self, node: ast.expr) -> tuple[Compute, Kind]:
        match node:
            case ast.Name(id=name):
                return self._name(name)
            case ast.Constant(value=value):
                return self._constant(value)
            case ast.UnaryOp(op=op, operand=operand):
                return self._unary(op, operand)
            case ast.BinOp(left=left, op=op, right=right):
                return self._binary(left, op, right)
            case ast.BoolOp(op=op, values=values):
                return self._logic(op, values)
            case ast.Compare(left=left, ops=ops, comparators=others):
                return self._comparison([left, *others], ops)
            case ast.Call():
                return self._call(node)
            case ast.IfExp():
                raise ExpressionError("`a if c else b` is not in the language", "write `where(c, a, b)`")
            case _:
                raise ExpressionError(
                    f"`{ast.unparse(node)}` is not in the language",
                    "write fields, numbers, arithmetic, comparisons, and, or, not and "
                    + ", ".join(FUNCTIONS),
                )

    def _name(self, name: str) -> tuple[Compute, Kind]:
        if name not in self.fields:
            raise ExpressionError(f"the event has no field `{name}`", nearest(name, self.fields))
        kind = self.fields[name]
        if kind in ("string", "other"):
            raise ExpressionError(
                f"`{name}` is not a number, a time or a truth value",
                "use a numeric, timestamp or boolean field",
            )
        self.used[name] = None
        return lambda columns, _: columns[name].astype(np.float64), kind

    def _constant(self, value: object) -> tuple[Compute, Kind]:
        if not isinstance(value, int | float):
            raise ExpressionError(f"{value!r} is not a number", "write a number, True or False")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ExpressionError("a number is too large", "write a number below 1e308")
        kind: Kind = "boolean" if isinstance(value, bool) else "number"
        return lambda _, rows: np.full(rows, number), kind

    def _unary(self, op: ast.unaryop, operand: ast.expr) -> tuple[Compute, Kind]:
        value, _ = self.compile(operand)
        match op:
            case ast.USub():
                return lambda columns, rows: -value(columns, rows), "number"
            case ast.UAdd():
                return value, "number"
            case ast.Not():
                return lambda columns, rows: (value(columns, rows) == 0.0).astype(np.float64), "boolean"
            case _:
                raise ExpressionError("`~` is not in the language", "write `not`")

    def _binary(self, left: ast.expr, op: ast.operator, right: ast.expr) -> tuple[Compute, Kind]:
        apply = _BINARY.get(type(op))
        if apply is None:
            raise ExpressionError(
                "an operator is not in the language", "write + - * / // % ** or the words and, or, not"
            )
        a, left_kind = self.compile(left)
        b, right_kind = self.compile(right)
        shifted = isinstance(op, ast.Add | ast.Sub) and (left_kind == "time") != (right_kind == "time")
        return lambda columns, rows: apply(
            a(columns, rows), b(columns, rows)
        ), "time" if shifted else "number"

    def _logic(self, op: ast.boolop, nodes: list[ast.expr]) -> tuple[Compute, Kind]:
        values = [self.compile(node)[0] for node in nodes]
        join: Any = np.logical_and if isinstance(op, ast.And) else np.logical_or

        def compute(columns: Columns, rows: int) -> Floats:
            truth: npt.NDArray[np.bool_] = values[0](columns, rows) != 0.0
            for value in values[1:]:
                truth = join(truth, value(columns, rows) != 0.0)
            return truth.astype(np.float64)

        return compute, "boolean"

    def _comparison(self, nodes: list[ast.expr], ops: list[ast.cmpop]) -> tuple[Compute, Kind]:
        values = [self.compile(node)[0] for node in nodes]
        tests = [_COMPARE.get(type(op)) for op in ops]
        if None in tests:
            raise ExpressionError(
                "`in` and `is` are not in the language", "write == or !=, is_null(x) for a missing value"
            )

        def compute(columns: Columns, rows: int) -> Floats:
            sides = [value(columns, rows) for value in values]
            truth = np.ones(rows, np.bool_)
            for test, a, b in zip(tests, sides, sides[1:], strict=False):
                assert test is not None  # noqa: S101 - refused above
                truth &= test(a, b)
            return truth.astype(np.float64)

        return compute, "boolean"

    def _call(self, node: ast.Call) -> tuple[Compute, Kind]:
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        function = FUNCTIONS.get(name)
        if function is None:
            raise ExpressionError(f"there is no function `{name}`", nearest(name, FUNCTIONS))
        if node.keywords or any(isinstance(arg, ast.Starred) for arg in node.args):
            raise ExpressionError(f"{name}() takes plain arguments only", f"write {name}(x)")
        if not function.least <= len(node.args) <= function.most:
            wanted = str(function.least) if function.least == function.most else f"{function.least} or more"
            raise ExpressionError(
                f"{name}() was given {len(node.args)} arguments", f"give it {wanted}: {function.doc}"
            )
        values, kinds = zip(*(self.compile(arg) for arg in node.args), strict=True)
        if name in ("hour", "weekday") and kinds[0] != "time":
            raise ExpressionError(
                f"{name}() needs a time", f"give it a timestamp-millis field: {function.doc}"
            )
        if name == "is_null" and isinstance(node.args[0], ast.Name):
            self.guarded.add(node.args[0].id)
        apply = function.apply

        def compute(columns: Columns, rows: int) -> Floats:
            result = apply(*(value(columns, rows) for value in values))
            return np.asarray(result, np.float64)

        return compute, "boolean" if name == "is_null" else "number"


def nearest(word: str, valid: Mapping[str, Any]) -> str:
    """A fix that names the valid word most like `word`, or all of them."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(valid), n=1, cutoff=0.5) or [
        v for v in valid if v.lower() == word.lower()
    ]
    if close:
        return f"did you mean `{close[0]}`?"
    return "write one of " + ", ".join(f"`{name}`" for name in valid)
