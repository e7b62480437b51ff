"""Claims to line-ups without a broker: what is loaded, what is said, and how the memory is shared."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import CollectorRegistry

from services.inference.core.lineup import ActiveModel, Failure, Lineup
from services.inference.core.registry import Registry
from services.inference.metrics import ModelMetrics
from services.inference.models import Desk
from services.inference.roles import Roles, Verdict
from shared.errors import Retry
from shared.models.announcement import Announcement
from shared.models.loading import LoadedModel, load_model
from shared.models.manifest import Artefact
from shared.models.safety import ModelRefused
from shared.models.signing import key_id, sign
from tests.unit.models.makers import FINGERPRINT, NAMES, announcement, artefact

KEY = Ed25519PrivateKey.generate()
ARTEFACTS = {version: artefact(seed=version) for version in range(1, 8)}
SIZE = ARTEFACTS[1].manifest.budget.memory_bytes


@dataclass
class Stand:
    """Roles over a store of artefacts, and everything they said and did."""

    memory_models: int = 100
    missing: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    proven: list[int] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    lineup: Lineup = field(default_factory=Lineup)
    roles: Roles = field(init=False)
    _said: int = 0

    def __post_init__(self) -> None:
        self.roles = Roles(
            registry=Registry("fraud", FINGERPRINT, {key_id(KEY.public_key()): KEY.public_key()}),
            prove=self._prove,
            recent=lambda: np.empty((0, len(NAMES))),
            tell=self.verdicts.append,
            publish=self._publish,
            metrics=ModelMetrics.on(CollectorRegistry()),
            wait_s=0.0,
            memory_bytes=self.memory_models * SIZE,
        )

    def hear(self, *steps: tuple[int, str], kind: str = "release") -> list[Announcement]:
        """One batch of records of (version, state), each with the next sequence and offset."""
        said, actions = [], []
        for version, state in steps:
            digest = ARTEFACTS[version].digest
            each = announcement(version, self._said + 1, digest=digest, state=state, kind=kind)
            said.append(sign(replace(each, share=0.5) if state == "canary" else each, KEY))
            actions.append(self.roles.registry.step(said[-1], self._said, 1_000))
            self._said += 1
        self.roles.obey(actions)
        return said

    @property
    def serving(self) -> tuple[int | None, int | None, list[int]]:
        def version(model: ActiveModel | None) -> int | None:
            return None if model is None else model.announcement.version

        lineup = self.lineup
        return (
            version(lineup.champion),
            version(lineup.canary),
            [m.announcement.version for m in lineup.shadows],
        )

    def said(self) -> list[tuple[str, int, str]]:
        """Kind, offset and reason of what was told since the last call."""
        told = [(v.kind.removeprefix("model."), v.offset, v.reason) for v in self.verdicts]
        self.verdicts.clear()
        return told

    def _publish(self, lineup: Lineup) -> None:
        self.lineup = lineup

    def _prove(self, said: Announcement, room: int) -> LoadedModel:
        found: Artefact = ARTEFACTS[said.version]
        if said.version in self.missing:
            raise Retry("not in the store")
        if said.version in self.broken:
            raise ModelRefused("golden.mismatch", "broken")
        if found.manifest.budget.memory_bytes > room:
            raise ModelRefused("resources.memory", "does not fit")
        self.proven.append(said.version)
        return load_model(found, FINGERPRINT, NAMES)


def test_every_served_role_is_loaded_and_accepted() -> None:
    stand = Stand()
    stand.hear((1, "champion"), (2, "canary"), (3, "shadow"), (4, "shadow"), (5, "candidate"))
    assert stand.serving == (1, 2, [3, 4])
    assert sorted(stand.said()) == [("accepted", offset, "accepted") for offset in range(4)]
    assert sorted(stand.proven) == [1, 2, 3, 4]


def test_a_model_that_changes_its_role_is_not_loaded_again() -> None:
    stand = Stand()
    stand.hear((1, "champion"))
    for state in ("candidate", "validated", "shadow", "canary", "champion"):
        stand.hear((2, state))
    assert stand.serving == (2, None, [])
    assert stand.proven == [1, 2]
    assert stand.said() == [("accepted", offset, "accepted") for offset in (0, 3, 4, 5)]


def test_a_promotion_in_one_transaction_leaves_no_moment_without_a_champion() -> None:
    stand = Stand()
    stand.hear((1, "champion"), (2, "canary"))
    stand.hear((1, "retired"), (2, "champion"))
    assert stand.serving == (2, None, [])
    assert stand.roles.previous is not None
    assert stand.roles.previous.announcement.version == 1


def test_a_retired_champion_serves_until_the_next_can() -> None:
    stand = Stand(broken={2})
    stand.hear((1, "champion"))
    stand.hear((1, "retired"), (2, "champion"))
    assert stand.serving == (1, None, [])
    assert ("rejected", 2, "golden.mismatch") in stand.said()


def test_after_compaction_the_retired_one_serves_where_the_champion_cannot() -> None:
    stand = Stand(broken={2})
    stand.hear((1, "retired"), (2, "champion"))
    assert stand.serving == (1, None, [])
    stand.hear((3, "champion"))
    assert stand.serving == (3, None, [])


def test_each_bad_record_of_a_batch_has_a_verdict_also_behind_a_good_one() -> None:
    stand = Stand(broken={1, 4}, missing={6})
    stand.hear(
        (1, "champion"), (2, "champion"), (3, "champion"), (4, "canary"), (5, "shadow"), (6, "shadow"),
    )  # fmt: skip
    assert stand.serving == (3, None, [5])
    assert sorted(stand.said(), key=lambda each: each[1]) == [
        ("superseded", 0, "superseded"),
        ("superseded", 1, "superseded"),
        ("accepted", 2, "accepted"),
        ("rejected", 3, "golden.mismatch"),
        ("accepted", 4, "accepted"),
        ("rejected", 5, "artefact.missing"),
    ]
    assert sorted(stand.proven) == [3, 5]


def test_the_next_older_champion_is_tried_where_the_newest_fails() -> None:
    stand = Stand(broken={3})
    stand.hear((1, "champion"), (2, "champion"), (3, "champion"))
    assert stand.serving == (2, None, [])
    assert stand.said() == [
        ("rejected", 2, "golden.mismatch"),
        ("accepted", 1, "accepted"),
        ("superseded", 0, "superseded"),
    ]


def test_memory_goes_to_champion_canary_and_the_newest_shadows() -> None:
    stand = Stand(memory_models=3)
    stand.hear((1, "champion"), (3, "shadow"), (4, "shadow"), (2, "canary"))
    assert stand.serving == (1, 2, [4])
    assert ("rejected", 1, "resources.memory") in stand.said()


def test_a_newer_shadow_takes_an_older_ones_memory_and_both_are_told() -> None:
    stand = Stand(memory_models=2)
    stand.hear((1, "champion"), (2, "shadow"))
    stand.said()
    stand.hear((3, "shadow"))
    assert stand.serving == (1, None, [3])
    assert stand.said() == [("rejected", 1, "resources.memory"), ("accepted", 2, "accepted")]


def test_the_champion_before_counts_and_goes_where_there_is_no_room() -> None:
    stand = Stand(memory_models=2)
    stand.hear((1, "champion"))
    stand.hear((2, "champion"))
    stand.hear((3, "shadow"))
    assert stand.serving == (2, None, [])
    alone = Stand(memory_models=1)
    alone.hear((1, "champion"))
    alone.hear((2, "champion"))
    assert alone.serving == (2, None, [])
    assert not alone.lineup.spare
    assert alone.roles.previous is None


def test_one_digest_in_two_roles_counts_once() -> None:
    stand = Stand(memory_models=2)
    stand.hear((1, "champion"), (2, "champion"))
    stand.hear((2, "shadow"))
    assert stand.serving == (2, None, [2])


def _failure(role: str, model: ActiveModel | None, instead: ActiveModel | None) -> Failure:
    assert model is not None
    return Failure(role, model, instead, "model.nonfinite", "11 of 100 rows had no score")


def test_a_champion_that_failed_does_not_come_back_with_the_next_line_up() -> None:
    stand = Stand()
    stand.hear((1, "champion"))
    first = stand.lineup.champion
    stand.hear((2, "champion"))
    stand.roles.take_out(_failure("champion", stand.lineup.champion, first))
    assert stand.said()[-1] == ("rolled_back", 1, "model.nonfinite")
    stand.hear((3, "shadow"))
    assert stand.serving == (1, None, [3])
    stand.hear((2, "champion"))
    assert stand.serving == (2, None, [3])


def test_a_failure_heard_after_the_next_champion_changes_only_what_lies_before() -> None:
    stand = Stand()
    stand.hear((1, "champion"))
    first = stand.lineup.champion
    stand.hear((2, "champion"))
    failed = stand.lineup.champion
    stand.hear((3, "champion"))
    stand.roles.take_out(_failure("champion", failed, first))
    assert stand.serving == (3, None, [])
    assert stand.roles.previous is first


@pytest.mark.parametrize(("role", "kind"), [("canary", "rolled_back"), ("shadow", "rejected")])
def test_a_failed_canary_or_shadow_is_gone_until_announced_again(role: str, kind: str) -> None:
    stand = Stand()
    stand.hear((1, "champion"), (2, role))
    model = stand.lineup.canary if role == "canary" else stand.lineup.shadows[0]
    stand.roles.take_out(_failure(role, model, None))
    assert stand.said()[-1] == (kind, 1, "model.nonfinite")
    stand.hear((3, "candidate"))
    assert stand.serving == (1, None, [])
    stand.hear((2, role))
    assert stand.serving[0] == 1
    assert stand.serving[1:] != (None, [])


def test_a_champion_with_none_before_it_is_told_as_failing() -> None:
    stand = Stand()
    stand.hear((1, "champion"))
    stand.roles.take_out(_failure("champion", stand.lineup.champion, None))
    assert stand.said()[-1] == ("failing", 0, "model.nonfinite")
    assert stand.serving == (1, None, [])


def test_the_desk_hands_over_the_newest_line_up_once_and_how_far_it_reaches() -> None:
    desk = Desk()
    assert (desk.take().lineup, desk.take().offset) == (None, -1)
    lineups: Sequence[Lineup] = (Lineup(), Lineup(spare=False))
    for lineup in lineups:
        desk.publish(lineup)
    desk.obeyed(17)
    taken = desk.take()
    assert (taken.lineup, taken.offset) == (lineups[1], 17)
    assert (desk.take().lineup, desk.take().offset) == (None, 17)
