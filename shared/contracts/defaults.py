"""Whether a field's default is a value of its type, by Avro's JSON encoding of defaults."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

Resolve = Callable[[str, str], Any]


def _whole(bits: int) -> Callable[[Any], bool]:
    limit = 1 << (bits - 1)
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _octets(value: Any) -> bool:
    return isinstance(value, str) and all(ord(character) < 256 for character in value)


_FITS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "int": _whole(32),
    "long": _whole(64),
    "float": _real,
    "double": _real,
    "bytes": _octets,
    "string": lambda value: isinstance(value, str),
}


def default_fits(avro: Any, value: Any, namespace: str, resolve: Resolve) -> bool:
    """Whether `value` is a default of type `avro`; of a union, of its first branch, as every reader takes it.

    `resolve(name, namespace)` gives the definition behind a name, None if there is none.
    """
    if isinstance(avro, list):
        return bool(avro) and default_fits(avro[0], value, namespace, resolve)
    if isinstance(avro, str):
        known = _FITS.get(avro)
        if known is not None:
            return known(value)
        return default_fits(resolve(avro, namespace), value, namespace, resolve)
    if not isinstance(avro, dict):
        return True  # another rule has told of it
    match avro.get("type"):
        case "record":
            return _record_fits(avro, value, avro.get("namespace") or namespace, resolve)
        case "array":
            return isinstance(value, list) and all(
                default_fits(avro.get("items"), item, namespace, resolve) for item in value
            )
        case "map":
            return isinstance(value, dict) and all(
                default_fits(avro.get("values"), item, namespace, resolve) for item in value.values()
            )
        case "enum":
            return value in avro.get("symbols", ())
        case "fixed":
            return _octets(value) and len(value) == avro.get("size")
        case inner:
            return default_fits(inner, value, namespace, resolve)


def _record_fits(avro: Mapping[str, Any], value: Any, namespace: str, resolve: Resolve) -> bool:
    fields = avro.get("fields", ())
    if not isinstance(value, dict) or not set(value) <= {field["name"] for field in fields}:
        return False
    return all(
        default_fits(field["type"], value[field["name"]], namespace, resolve)
        if field["name"] in value
        else "default" in field
        for field in fields
    )
