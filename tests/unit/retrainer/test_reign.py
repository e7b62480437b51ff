"""The retrainer compares with the champion that workers obey, whatever else is written on models.v1."""

import random
from dataclasses import replace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.inference.core.registry import Claim, Registry
from services.retrainer.core.reign import Reign
from services.retrainer.outlook import KafkaOutlook
from services.retrainer.releases import Announced
from shared.models.announcement import CANDIDATE, CHAMPION, REJECTED, RETIRED, ROLLBACK, SHADOW, Announcement
from shared.models.signing import key_id, sign
from tests.unit.models.makers import FINGERPRINT, announcement

KEY, STRANGER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
TRUSTED = {key_id(KEY.public_key()): KEY.public_key()}


def signed(
    version: int, sequence: int | None = None, key: Ed25519PrivateKey = KEY, **more: Any
) -> Announcement:
    return sign(replace(announcement(version, sequence), **more), key)


def reign() -> Reign:
    return Reign("fraud", FINGERPRINT, TRUSTED)


class Models:
    """models.v1 in memory."""

    def __init__(self, *said: Announcement) -> None:
        self.said = said

    def read(self) -> list[Announced]:
        return [Announced(offset, 1_000, each) for offset, each in enumerate(self.said)]


def champion_of(*said: Announcement, after: str = "") -> dict[str, Any]:
    nothing: Any = None
    outlook = KafkaOutlook(
        nothing, reign, cast("Any", Models(*said)), nothing, "", None, lambda _: -1, 0.0, 0.0, lambda: False
    )
    return outlook.champion(after)


@pytest.mark.parametrize(
    "other",
    [
        announcement(2),
        signed(2, key=STRANGER),
        replace(signed(2), digest="f" * 64),
        signed(2, expires_at=999),
        signed(2, 1),
        signed(1, 2),
        signed(2, feature_fingerprint="f" * 64),
        signed(1, 2, kind=ROLLBACK, digest="f" * 64),
        signed(2, location="somewhere"),
        signed(2, name="another"),
        signed(2, state=SHADOW),
    ],
    ids=[
        "unsigned",
        "untrusted",
        "changed",
        "expired",
        "stale",
        "older",
        "features",
        "digest",
        "location",
        "model",
        "role",
    ],
)
def test_what_no_worker_obeys_is_no_champion(other: Announcement) -> None:
    first = signed(1)
    assert champion_of(first, other) == {"digest": first.digest, "version": 1, "sequence": 1, "offset": 0}


def test_the_newest_champion_counts_and_a_retired_one_until_then() -> None:
    assert champion_of() == {}
    assert champion_of(signed(1), signed(2))["version"] == 2
    assert champion_of(signed(1), signed(1, 2, state=RETIRED))["version"] == 1
    assert champion_of(signed(1), signed(2), signed(1, 3, kind=ROLLBACK)) == {
        "digest": signed(1).digest,
        "version": 1,
        "sequence": 3,
        "offset": 2,
    }


def test_workers_and_retrainer_see_the_same_champion() -> None:
    """A law over made-up histories, in which every announcement can be loaded."""
    for seed in range(300):
        chance = random.Random(seed)
        registry, own = Registry("fraud", FINGERPRINT, TRUSTED), reign()
        for offset in range(12):
            said = signed(
                chance.randint(1, 5),
                chance.randint(1, 12),
                chance.choice((KEY, KEY, KEY, STRANGER)),
                state=chance.choice((CANDIDATE, SHADOW, CHAMPION, CHAMPION, CHAMPION, RETIRED, REJECTED)),
                kind=chance.choice(("release", "release", ROLLBACK)),
            )
            action = registry.step(said, offset, 1_000)
            if action.verb == "load":
                registry.settle(Claim(said, offset), loaded=True)
            assert own.step(said, offset, 1_000) == (action.verb in ("load", "drop")), seed
            assert own.champion == registry.active, seed
