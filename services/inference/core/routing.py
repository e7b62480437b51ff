"""Which keys a canary answers: always the same ones for one share, and more of them for a larger."""

from shared.codec.batch import Mask, Strings
from shared.codec.hashing import xxh64_strings

_SALT = b"millrace.canary.v1\n"
_BITS = 53


class Order:
    """All texts in one fixed order that looks random; every salt has its own.

    >>> Order(b"any").front(Strings.of([b"a", b"b", b"c"]), 1.0).tolist()
    [True, True, True]
    """

    def __init__(self, salt: bytes) -> None:
        self._seed = int(xxh64_strings(Strings.of([salt]))[0])

    def front(self, texts: Strings, share: float) -> Mask:
        """Which texts are among the first `share`, in (0, 1], of all that there can be."""
        # 53 bits are what a double holds exactly.
        return (xxh64_strings(texts, self._seed) >> (64 - _BITS)) < int(share * 2.0**_BITS)


class Router:
    """The keys of one model name in an order of their own: a canary's share takes them from the front."""

    def __init__(self, model_name: str) -> None:
        self._order = Order(_SALT + model_name.encode())

    def canary(self, keys: Strings, share: float) -> Mask:
        """Which rows the canary answers, `share` in (0, 1] of all keys."""
        return self._order.front(keys, share)
