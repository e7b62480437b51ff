import itertools

import numpy as np
import pytest

from services.inference.core.routing import Router
from shared.codec.batch import Strings

KEYS = Strings.of([f"customer-{i}".encode() for i in range(20_000)])


def test_a_larger_share_only_adds_keys() -> None:
    router = Router("fraud")
    masks = [router.canary(KEYS, share) for share in (0.001, 0.05, 0.1, 0.5, 0.99, 1.0)]
    for less, more in itertools.pairwise(masks):
        assert not (less & ~more).any()
    assert masks[-1].all()


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_share_is_that_of_keys(share: float) -> None:
    deviation = abs(Router("fraud").canary(KEYS, share).mean() - share)
    assert deviation < 4 * np.sqrt(share * (1 - share) / len(KEYS))


def test_a_key_is_routed_alike_in_every_batch() -> None:
    whole = Router("fraud").canary(KEYS, 0.3)
    parts = [Router("fraud").canary(KEYS.take(np.arange(i, 20_000, 7)), 0.3) for i in range(7)]
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(part, whole[i::7])


def test_models_share_no_order_of_keys() -> None:
    both = Router("fraud").canary(KEYS, 0.1) & Router("churn").canary(KEYS, 0.1)
    assert 0.005 < both.mean() < 0.015


def test_the_order_of_keys_is_fixed_for_ever() -> None:
    keys = Strings.of([b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"])
    chosen = [keys.to_list()[i] for i in np.flatnonzero(Router("fraud").canary(keys, 0.5))]
    assert chosen == [b"a", b"b", b"c", b"e", b"f", b"h"]
