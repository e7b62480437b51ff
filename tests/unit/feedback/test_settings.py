"""What a feedback worker is told: a flood of labels without events does not stop it."""

import pytest

from services.feedback.settings import FeedbackSettings
from shared.runtime.fuse import Fuse


@pytest.mark.parametrize("poll", [None, "100"])
def test_a_flood_of_orphans_leaves_the_fuse_whole(poll: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if poll is not None:
        monkeypatch.setenv("MILLRACE_FEEDBACK__RUNTIME__MAX_RECORDS", poll)
    runtime = FeedbackSettings().runtime
    assert runtime.max_records == int(poll or 5_000)
    fuse = Fuse(runtime.tuning().fuse_limit)
    fuse.watch(good=0, bad=50_000)
    assert fuse.in_a_row == 50_000
