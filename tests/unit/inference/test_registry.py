from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.inference.core.registry import Action, Claim, Registry
from shared.models.announcement import Announcement
from shared.models.signing import key_id, sign
from tests.unit.models.makers import FINGERPRINT, announcement

KEY = Ed25519PrivateKey.generate()


def _registry() -> Registry:
    return Registry("fraud", FINGERPRINT, {key_id(KEY.public_key()): KEY.public_key()})


def _signed(version: int, sequence: int | None = None, **changes: object) -> Announcement:
    return sign(replace(announcement(version, sequence), **changes), KEY)  # type: ignore[arg-type]


def _fold(registry: Registry, *said: Announcement | None) -> list[Action]:
    actions = []
    for offset, each in enumerate(said):
        action = registry.step(each, offset, 1_000)
        if action.verb == "load" and action.announcement:
            registry.settle(Claim(action.announcement, offset), loaded=True)
        actions.append(action)
    return actions


def _version(registry: Registry) -> int | None:
    return None if registry.active is None else registry.active.version


def test_higher_versions_replace_lower_ones() -> None:
    registry = _registry()
    assert [a.verb for a in _fold(registry, _signed(1), _signed(2), _signed(5))] == ["load"] * 3
    assert _version(registry) == 5


def test_an_older_version_announced_again_is_ignored() -> None:
    registry = _registry()
    actions = _fold(registry, _signed(1), _signed(2), _signed(1), _signed(1, 9), _signed(2, 9))
    assert [a.verb for a in actions[2:]] == ["ignore"] * 3
    assert {a.reason for a in actions[2:]} == {"version.stale"}
    assert _version(registry) == 2


def test_a_rollback_needs_a_higher_sequence_and_stays_when_the_topic_is_read_twice() -> None:
    registry = _registry()
    said = [_signed(1, 1), _signed(2, 2), _signed(1, 2, kind="rollback"), _signed(1, 3, kind="rollback")]
    assert [a.verb for a in _fold(registry, *said)] == ["load", "load", "ignore", "load"]
    assert _version(registry) == 1
    assert {a.verb for a in _fold(registry, *said)} == {"ignore"}
    assert _version(registry) == 1


def test_after_a_rollback_the_newer_version_can_be_released_again() -> None:
    registry = _registry()
    _fold(registry, _signed(1, 1), _signed(2, 2), _signed(1, 3, kind="rollback"), _signed(2, 4))
    assert _version(registry) == 2


def test_of_two_artefacts_for_one_version_the_first_wins() -> None:
    registry = _registry()
    other = _signed(1, 2, digest="ee" * 32)
    action = _fold(registry, _signed(1), other)[1]
    assert (action.verb, action.reason, action.incident) == ("refuse", "artefact.conflict", True)
    assert registry.active == _signed(1)


def test_an_unsigned_announcement_does_not_claim_a_version() -> None:
    registry = _registry()
    actions = _fold(registry, announcement(1, digest="ee" * 32), _signed(1))
    assert [a.verb for a in actions] == ["refuse", "load"]


def test_a_tombstone_is_an_incident_and_the_last_good_model_stays() -> None:
    registry = _registry()
    action = _fold(registry, _signed(1), None)[1]
    assert (action.verb, action.reason, action.incident) == ("ignore", "tombstone.unexpected", True)
    assert _version(registry) == 1


def test_other_models_are_none_of_its_business() -> None:
    registry = _registry()
    assert _fold(registry, _signed(1, name="other"))[0].reason == "model.other"
    assert registry.active is None


def test_a_failed_load_keeps_what_serves_and_a_new_announcement_may_try_again() -> None:
    registry = _registry()
    _fold(registry, _signed(1))
    second = registry.step(_signed(2, 2), 1, 1_000)
    assert second.announcement is not None
    registry.settle(Claim(second.announcement, 1), loaded=False)
    assert _version(registry) == 1
    assert registry.step(_signed(2, 2), 2, 1_000).verb == "ignore"
    assert registry.step(_signed(2, 3), 3, 1_000).verb == "load"


def test_while_one_is_loading_only_a_newer_one_is_loaded() -> None:
    registry = _registry()
    assert registry.step(_signed(3, 3), 0, 1_000).verb == "load"
    assert registry.step(_signed(2, 4), 1, 1_000).verb == "ignore"
    assert registry.step(_signed(4, 5), 2, 1_000).verb == "load"


REFUSED = {
    "location.forbidden": _signed(2, location="http://169.254.169.254/"),
    "announcement.invalid": _signed(2, digest="../../x"),
    "signature.missing": announcement(2),
    "signature.unknown_key": sign(announcement(2), Ed25519PrivateKey.generate()),
    "signature.invalid": replace(_signed(2), version=3),
    "signature.expired": _signed(2, expires_at=999),
    "features.mismatch": _signed(2, feature_fingerprint="00" * 32),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_wrong_is_refused_and_the_model_kept(reason: str) -> None:
    registry = _registry()
    action = _fold(registry, _signed(1), REFUSED[reason])[1]
    assert (action.verb, action.reason, action.incident) == ("refuse", reason, True)
    assert _version(registry) == 1
    assert registry.sequence == 1
    assert action.detail
