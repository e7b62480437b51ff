"""Roles under any history: what serves does not depend on how the topic was cut, and no role is held twice."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.core.decide import Decisions
from services.inference.core.fold import InferenceFold
from services.inference.core.lineup import ActiveModel, Lineup
from services.inference.core.registry import Action, Claim, Registry
from services.inference.core.routing import Router
from services.inference.core.rows import Answering
from services.inference.core.scoring import Scorer
from shared.codec.batch import Strings
from shared.models.announcement import STATES, Announcement
from shared.models.signing import key_id, sign
from tests.unit.inference.makers import POISON, feature_batch, loaded, touchy
from tests.unit.models.makers import FINGERPRINT, NAMES, announcement, samples

KEY = Ed25519PrivateKey.generate()
STEP = st.tuples(
    st.integers(1, 4), st.sampled_from(STATES), st.sampled_from(["release", "release", "rollback"])
)
HISTORY = st.lists(STEP, max_size=25)
UNLOADABLE = st.sets(st.integers(1, 4), max_size=2)
Roles = tuple[int | None, int | None, tuple[int, ...]]


def _records(history: list[tuple[int, str, str]]) -> list[Announcement]:
    said = [announcement(v, i, state=state, kind=kind) for i, (v, state, kind) in enumerate(history, 1)]
    return [sign(replace(each, share=0.5) if each.state == "canary" else each, KEY) for each in said]


def _settle(registry: Registry, unloadable: set[int]) -> set[int]:
    """What the loader does: each role to the newest claim that can be loaded; the offsets that it tried."""
    tried = set()
    shadows = [[claim] for claim in registry.shadows.values()]
    for claims in (registry.champions, registry.canaries, *shadows):
        for claim in reversed(list(claims)):
            good = claim.announcement.version not in unloadable
            registry.settle(claim, loaded=good)
            tried.add(claim.offset)
            if good:
                break
    return tried


def _serving(registry: Registry) -> Roles:
    def version(claims: list[Claim]) -> int | None:
        assert len(claims) <= 1
        return claims[0].announcement.version if claims else None

    return version(registry.champions), version(registry.canaries), tuple(sorted(registry.shadows))


def _run(records: list[Announcement], cuts: set[int], unloadable: set[int]) -> tuple[Registry, list[Action]]:
    registry = Registry("fraud", FINGERPRINT, {key_id(KEY.public_key()): KEY.public_key()})
    actions = []
    for offset, each in enumerate(records):
        actions.append(registry.step(each, offset, 1_000))
        if offset in cuts:
            _settle(registry, unloadable)
    _settle(registry, unloadable)
    return registry, actions


@settings(max_examples=60)
@given(HISTORY, st.sets(st.integers(0, 25)))
def test_what_serves_does_not_depend_on_how_the_topic_was_cut(
    history: list[tuple[int, str, str]], cuts: set[int]
) -> None:
    records = _records(history)
    whole, cut = _run(records, set(), set())[0], _run(records, cuts, set())[0]
    assert _serving(whole) == _serving(cut)


@settings(max_examples=60)
@given(HISTORY, st.sets(st.integers(0, 25)), UNLOADABLE)
def test_a_version_has_one_role_and_only_what_loads_serves(
    history: list[tuple[int, str, str]], cuts: set[int], unloadable: set[int]
) -> None:
    registry, actions = _run(_records(history), cuts, unloadable)
    champion, canary, shadows = _serving(registry)
    assert canary not in shadows
    assert not unloadable & {champion, canary, *shadows}
    newest: dict[int, str] = {}
    for action in actions:
        if action.verb in ("load", "drop") and action.announcement is not None:
            newest[action.announcement.version] = action.announcement.state
    assert canary is None or newest[canary] == "canary"
    assert all(newest[version] == "shadow" for version in shadows)


@settings(max_examples=60)
@given(HISTORY, st.sets(st.integers(0, 25)), UNLOADABLE)
def test_every_claim_is_tried_or_named_superseded(
    history: list[tuple[int, str, str]], cuts: set[int], unloadable: set[int]
) -> None:
    registry = Registry("fraud", FINGERPRINT, {key_id(KEY.public_key()): KEY.public_key()})
    claimed: set[int] = set()
    tried: set[int] = set()
    for offset, each in enumerate(_records(history)):
        if registry.step(each, offset, 1_000).verb == "load":
            claimed.add(offset)
        if offset in cuts:
            tried |= _settle(registry, unloadable)
    tried |= _settle(registry, unloadable)
    superseded = [claim.offset for claim in registry.superseded]
    assert len(superseded) == len(set(superseded))
    assert set(superseded) | tried == claimed
    assert not set(superseded) & tried


@given(st.lists(st.binary(max_size=40), max_size=60), st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=4))
def test_a_larger_share_only_adds_keys(keys: list[bytes], shares: list[float]) -> None:
    packed, router = Strings.of(keys), Router("fraud")
    masks = [router.canary(packed, share) for share in sorted(shares)]
    assert all(not (less & ~more).any() for less, more in pairwise(masks))


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=8), st.booleans()), max_size=40),
    st.floats(0.05, 1.0),
    st.integers(0, 2),
)
def test_every_good_row_is_answered_once_in_order_by_the_model_of_its_key(
    rows: list[tuple[bytes, bool]], share: float, shadows: int
) -> None:
    matrix = samples(len(rows))
    keys = Strings.of([key for key, _ in rows])
    bad = [row for row, (_, spoiled) in enumerate(rows) if spoiled]
    matrix[bad, 0] = POISON
    champion = ActiveModel(announcement(1), 1, touchy()[0])
    canary = ActiveModel(announcement(2, state="canary", share=share), 2, touchy()[0])
    beside = tuple(
        ActiveModel(announcement(3 + i, state="shadow"), 3 + i, Scorer(loaded(seed=9 + i)))
        for i in range(shadows)
    )
    fold = InferenceFold(NAMES, Answering(Decisions([("any", 0.0)])), "fraud")
    fold.obey(Lineup(champion, canary, beside))
    answer = fold.step(feature_batch(matrix).having(key=keys))
    good = [row for row in range(len(rows)) if row not in bad]
    assert [each.row for each in answer.bad] == bad
    out = answer.predictions
    assert out["input_offset"].array.tolist() == good
    mask = Router("fraud").canary(keys, share)
    assert out["model_version"].array.tolist() == [2 if mask[row] else 1 for row in good]
    assert out["shadows"].array.tolist() == [shadows] * len(good)
    assert [each["input_offset"].array.tolist() for each in answer.shadows] == [good] * shadows
    np.testing.assert_allclose(
        out["score"].array, champion.scorer.score(matrix[good]).scores, rtol=0, atol=1e-6
    )
