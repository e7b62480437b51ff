"""Expressions: equal to Python row by row, and closed against everything that is not in the language."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.expressions import FUNCTIONS, MAX_CHARS, ExpressionError, Kind, compile_expression

NAMES: dict[str, Kind] = {"x": "number", "y": "number", "flag": "boolean", "t": "time"}
REFERENCE: dict[str, Any] = {
    "log": math.log,
    "log1p": math.log1p,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "abs": abs,
    "min": min,
    "max": max,
    "where": lambda c, a, b: a if c else b,
    "is_null": math.isnan,
    "hour": lambda t: (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=t)).hour,
    "weekday": lambda t: (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=t)).weekday(),
    "__builtins__": {},
}


def _joined(pattern: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda values: pattern.format(*values))


def _exact(depth: int) -> st.SearchStrategy[str]:
    """Numbers that float64 holds exactly, so that both sides agree to the bit."""
    leaf = st.sampled_from(["x", "y", "flag", "2", "-3", "7", "hour(t)", "weekday(t)"])
    if depth == 0:
        return leaf
    inner, truth = _exact(depth - 1), _truth(depth - 1)
    arithmetic = st.sampled_from(["+", "-", "*", "//", "%"])
    return st.one_of(
        leaf,
        _joined("({} {} {})", inner, arithmetic, inner),
        _joined("-{}", inner),
        _joined("abs({})", inner),
        _joined("min({}, {})", inner, inner),
        _joined("max({}, {}, {})", inner, inner, inner),
        _joined("where({}, {}, {})", truth, inner, inner),
    )


def _truth(depth: int) -> st.SearchStrategy[str]:
    inner = _exact(max(depth - 1, 0))
    operator = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    comparison = _joined("({} {} {})", inner, operator, inner)
    if depth == 0:
        return comparison
    deeper = _truth(depth - 1)
    return st.one_of(
        comparison,
        _joined("({} {} {} {} {})", inner, operator, inner, operator, inner),
        _joined("({} and {})", deeper, deeper),
        _joined("({} or {})", deeper, deeper),
        _joined("(not {})", deeper),
    )


SMOOTH = st.one_of(
    _exact(3),
    _truth(3),
    _joined("log1p(abs({}))", _exact(2)),
    _joined("log({})", _exact(2)),
    _joined("sqrt({})", _exact(2)),
    _joined("exp({} / 100)", _exact(1)),
    _joined("{} / {}", _exact(2), _exact(2)),
    _joined("({}) ** 2", _exact(2)),
)
ROW = st.tuples(st.integers(-50, 50), st.integers(-50, 50), st.booleans(), st.integers(-(10**12), 4 * 10**12))


@given(text=SMOOTH, rows=st.lists(ROW, min_size=1, max_size=6))
def test_columns_equal_python_row_by_row(text: str, rows: list[tuple[int, int, bool, int]]) -> None:
    columns = {
        "x": np.array([row[0] for row in rows], np.int64),
        "y": np.array([row[1] for row in rows], np.float64),
        "flag": np.array([row[2] for row in rows], np.bool_),
        "t": np.array([row[3] for row in rows], np.int64),
    }
    got = compile_expression(text, NAMES).evaluate(columns)
    assert got.dtype == np.float64
    assert got.shape == (len(rows),)
    for value, row in zip(got.tolist(), rows, strict=True):
        try:
            wanted = eval(text, REFERENCE, {"x": row[0], "y": float(row[1]), "flag": row[2], "t": row[3]})  # noqa: S307
        except (ZeroDivisionError, ValueError, OverflowError):
            continue  # numpy gives an infinity or NaN where Python raises
        assert value == pytest.approx(float(wanted), rel=1e-12, abs=1e-12), (text, row)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x", [1.0, math.nan]),
        ("x + 1", [2.0, math.nan]),
        ("x == x", [1.0, 0.0]),
        ("x != 1", [0.0, 1.0]),
        ("is_null(x)", [0.0, 1.0]),
        ("where(is_null(x), -1, x)", [1.0, -1.0]),
        ("x / 0", [math.inf, math.nan]),
        ("log(x - 2)", [math.nan, math.nan]),
        ("x ** 10000 * 1e308 * 10", [math.inf, math.nan]),
        ("True", [1.0, 1.0]),
        ("not x", [0.0, 0.0]),
        ("min(x, 5)", [1.0, math.nan]),
    ],
)
def test_null_and_overflow_never_raise(text: str, wanted: list[float]) -> None:
    got = compile_expression(text, {"x": "number"}).evaluate({"x": np.array([1.0, math.nan])})
    np.testing.assert_array_equal(got, wanted)


def test_fields_and_guards_are_told() -> None:
    expression = compile_expression("where(is_null(y), 0, y) + x + x", NAMES)
    assert expression.fields == ("y", "x")
    assert expression.guarded == {"y"}


def test_no_rows_give_no_values() -> None:
    assert compile_expression("hour(t) + x", NAMES).evaluate({n: np.empty(0) for n in NAMES}).tolist() == []


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("", "is not an expression", "write it as in Python"),
        ("x +", "is not an expression", "write it as in Python"),
        ("x; y", "is not an expression", "write it as in Python"),
        ("x = 1", "is not an expression", "write it as in Python"),
        ("z", "no field `z`", "`x`"),
        ("flg", "no field `flg`", "did you mean `flag`?"),
        ("'text'", "'text' is not a number", "write a number"),
        ("None", "None is not a number", "write a number"),
        ("1j", "1j is not a number", "write a number"),
        ("1e999", "too large", "below 1e308"),
        ("1" + "0" * 400, "too large", "below 1e308"),
        ("name", "is not a number, a time", "numeric"),
        ("x if flag else y", "`a if c else b`", "where(c, a, b)"),
        ("x.real", "`x.real` is not in the language", "write fields"),
        ("x[0]", "`x[0]` is not in the language", "write fields"),
        ("[x]", "`[x]` is not in the language", "write fields"),
        ("lambda: 1", "is not in the language", "write fields"),
        ("(y := x)", "is not in the language", "write fields"),
        ("f'{x}'", "is not in the language", "write fields"),
        ("~x", "`~` is not", "`not`"),
        ("x & y", "an operator is not", "and, or, not"),
        ("x @ y", "an operator is not", "+ - *"),
        ("x in (1, 2)", "`(1, 2)` is not", "write fields"),
        ("x is y", "`in` and `is`", "=="),
        ("open(x)", "no function `open`", "write one of"),
        ("__import__(x)", "no function `__import__`", "write one of"),
        ("x.__class__(y)", "no function `x.__class__`", "write one of"),
        ("sqr(x)", "no function `sqr`", "did you mean `sqrt`?"),
        ("log(x, y)", "log() was given 2 arguments", "give it 1"),
        ("min(x)", "min() was given 1", "give it 2 or more"),
        ("log(x=x)", "plain arguments", "log(x)"),
        ("min(*x)", "plain arguments", "min(x)"),
        ("hour(x)", "hour() needs a time", "timestamp-millis"),
        ("weekday(t - t)", "weekday() needs a time", "timestamp-millis"),
        ("(" * 500 + "x" + ")" * 500, "", ""),
        ("-" * 1_500 + "x", "", ""),
        ("x" * (MAX_CHARS + 1), "characters", "at most"),
    ],
)
def test_what_is_not_in_the_language_is_refused(text: str, message: str, fix: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, {**NAMES, "name": "string"})
    assert message in caught.value.message
    assert fix in caught.value.fix


def test_a_shifted_time_is_a_time() -> None:
    hour = compile_expression("hour(t + 3600000)", NAMES)
    assert hour.evaluate({"t": np.array([0, 23 * 3_600_000])}).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_a_doc_and_a_reference(name: str) -> None:
    reference: Callable[..., Any] = REFERENCE[name]
    assert callable(reference)
    assert FUNCTIONS[name].doc
