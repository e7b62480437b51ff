"""What the headers of a record say about it: CloudEvents id and source, and whether there are too many."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.ingest.core.reasons import HEADERS_DUPLICATE, HEADERS_SIZE, OK
from services.ingest.core.rows import Codes
from services.ingest.core.spec import Limits
from shared.codec.batch import Strings
from shared.runtime.polled import Headers

ID, SOURCE = "ce_id", "ce_source"


@dataclass(frozen=True, slots=True)
class Named:
    """Per row the CloudEvents source and id where the headers give one; empty where not."""

    sources: list[bytes]
    ids: list[bytes]


def check_headers(headers: Sequence[Headers | None], limits: Limits) -> tuple[Codes, Named]:
    """A code for each row (OK, or what is wrong with its headers), and what they name."""
    codes = np.zeros(len(headers), np.int16)
    named = Named([b""] * len(headers), [b""] * len(headers))
    for row, given in enumerate(headers):
        if given:
            codes[row] = _check(given, limits)
            if codes[row] == OK:
                found = dict(given)
                named.sources[row] = found.get(SOURCE) or b""
                named.ids[row] = found.get(ID) or b""
    return codes, named


def _check(given: Headers, limits: Limits) -> int:
    size = sum(len(name.encode()) + len(value or b"") for name, value in given)
    if len(given) > limits.max_headers or size > limits.max_header_bytes:
        return HEADERS_SIZE
    names = [name for name, _ in given]
    if names.count(ID) > 1 or names.count(SOURCE) > 1:
        return HEADERS_DUPLICATE
    return OK


def name_rows(declared: Strings, named: Named, rows: Sequence[int]) -> tuple[Strings, Strings]:
    """Ids and sources of `rows`: the headers' where they give one, else the declared id."""
    own = declared.to_list()
    ids = [named.ids[row] or own[at] for at, row in enumerate(rows)]
    return Strings.of(ids), Strings.of([named.sources[row] for row in rows])
