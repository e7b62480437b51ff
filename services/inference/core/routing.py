"""Which keys a canary answers: always the same ones for one share, and more of them for a larger."""

from shared.codec.batch import Mask, Strings
from shared.codec.hashing import xxh64_strings

_SALT = b"millrace.canary.v1\n"
_BITS = 53


class Router:
    """The keys of one model name in a fixed order of their own: a share takes them from the front.

    >>> keys = Strings.of([b"a", b"b", b"c", b"d"])
    >>> bool(Router("fraud").canary(keys, 1.0).all())
    True
    """

    def __init__(self, model_name: str) -> None:
        self._seed = int(xxh64_strings(Strings.of([_SALT + model_name.encode()]))[0])

    def canary(self, keys: Strings, share: float) -> Mask:
        """Which rows the canary answers, `share` in (0, 1] of all keys."""
        # 53 bits are what a double holds exactly.
        return (xxh64_strings(keys, self._seed) >> (64 - _BITS)) < int(share * 2.0**_BITS)
