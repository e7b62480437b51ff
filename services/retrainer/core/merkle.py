"""One sha256 over many: the root changes with any leaf, their order or their number."""

import hashlib
from collections.abc import Sequence

_LEAF, _NODE, _EMPTY = b"\x00", b"\x01", b"\x02"


def merkle_root(leaves: Sequence[bytes]) -> str:
    """The root in hex of a binary tree; an odd node goes up as it is (RFC 6962's shape and prefixes).

    >>> merkle_root([b"a", b"b"]) == merkle_root([b"b", b"a"])
    False
    """
    if not leaves:
        return hashlib.sha256(_EMPTY).hexdigest()
    level = [hashlib.sha256(_LEAF + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        paired = [
            hashlib.sha256(_NODE + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)
        ]
        level = [*paired, level[-1]] if len(level) % 2 else paired
    return level[0].hex()
