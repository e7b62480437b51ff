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


def _roles(registry: Registry) -> dict[str, list[int]]:
    return {
        "champion": [c.announcement.version for c in registry.champions],
        "canary": [c.announcement.version for c in registry.canaries],
        "shadow": [c.announcement.version for c in registry.shadows.values()],
    }


def _life(*steps: tuple[int, str]) -> list[Announcement]:
    """Signed records of (version, state), one sequence after the other."""
    return [_signed(version, at, state=state) for at, (version, state) in enumerate(steps, 1)]


LIVES: dict[str, tuple[list[tuple[int, str]], dict[str, list[int]]]] = {
    "a version moves from role to role": (
        [(1, "champion"), (2, "shadow"), (2, "canary"), (2, "champion")],
        {"champion": [2], "canary": [], "shadow": []},
    ),
    "one canary, several shadows": (
        [(1, "champion"), (2, "canary"), (3, "canary"), (4, "shadow"), (5, "shadow"), (4, "shadow")],
        {"champion": [1], "canary": [3], "shadow": [5, 4]},
    ),
    "states that do not serve take a version out": (
        [(1, "champion"), (2, "canary"), (3, "shadow"), (4, "shadow"), (2, "rejected"), (3, "rolled_back")],
        {"champion": [1], "canary": [], "shadow": [4]},
    ),
    "a retired champion stays until the next": (
        [(1, "champion"), (1, "retired"), (2, "candidate"), (2, "validated"), (2, "awaiting")],
        {"champion": [1], "canary": [], "shadow": []},
    ),
    "a rolled back champion stays too": (
        [(1, "champion"), (2, "champion"), (2, "rolled_back")],
        {"champion": [2], "canary": [], "shadow": []},
    ),
    "an older version may be tried beside the champion": (
        [(1, "champion"), (2, "champion"), (1, "retired"), (1, "shadow")],
        {"champion": [2], "canary": [], "shadow": [1]},
    ),
    "roles do not wait for a champion": (
        [(1, "canary"), (2, "shadow")],
        {"champion": [], "canary": [1], "shadow": [2]},
    ),
}


@pytest.mark.parametrize("life", LIVES)
def test_roles_follow_the_states(life: str) -> None:
    steps, expected = LIVES[life]
    registry = _registry()
    _fold(registry, *_life(*steps))
    assert _roles(registry) == expected


def test_a_canary_that_cannot_be_loaded_leaves_the_one_that_serves() -> None:
    registry = _registry()
    first, second = _life((2, "canary"), (3, "canary"))
    _fold(registry, first)
    assert registry.step(second, 1, 1_000).verb == "load"
    registry.settle(Claim(second, 1), loaded=False)
    assert _roles(registry)["canary"] == [2]


def test_claims_that_nobody_tried_are_named_superseded() -> None:
    registry = _registry()
    said = _life(
        (1, "champion"), (2, "canary"), (3, "shadow"), (4, "champion"), (5, "canary"), (3, "rejected")
    )
    for offset, each in enumerate(said):
        registry.step(each, offset, 1_000)
    for claim in (registry.champions[-1], registry.canaries[-1]):
        registry.settle(claim, loaded=True)
    assert [claim.offset for claim in registry.superseded] == [2, 0, 1]


def test_a_champion_that_fails_gives_way_and_can_be_announced_again() -> None:
    registry = _registry()
    said = _life((1, "champion"), (2, "champion"))
    _fold(registry, *said)
    registry.withdraw(Claim(said[1], 1), instead=Claim(said[0], 0))
    assert (_version(registry), _roles(registry)["champion"]) == (1, [1])
    assert registry.step(_signed(2, 3), 2, 1_000).verb == "load"


def test_a_failed_champion_that_has_been_replaced_changes_nothing() -> None:
    registry = _registry()
    said = _life((1, "champion"), (2, "champion"), (3, "champion"))
    _fold(registry, *said)
    registry.withdraw(Claim(said[1], 1), instead=Claim(said[0], 0))
    assert _roles(registry)["champion"] == [3]


def test_the_retired_champion_is_the_last_resort_of_a_compacted_topic() -> None:
    registry = _registry()
    retired, champion = _life((1, "retired"), (2, "champion"))
    registry.step(retired, 0, 1_000)
    registry.step(champion, 1, 1_000)
    assert registry.resort() is None
    registry.settle(Claim(champion, 1), loaded=False)
    assert registry.resort() == Claim(retired, 0)


def test_what_was_taken_back_is_no_last_resort() -> None:
    registry = _registry()
    _fold(registry, *_life((1, "retired"), (1, "rolled_back")))
    assert registry.resort() is None


REFUSED = {
    "announcement.invalid share": _signed(2, state="canary", share=0.0),
    "announcement.invalid state": _signed(2, state="emperor"),
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
    assert (action.verb, action.reason, action.incident) == ("refuse", reason.split()[0], True)
    assert _version(registry) == 1
    assert registry.sequence == 1
    assert action.detail
