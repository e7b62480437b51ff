"""Why a label is not joined: bounded codes, and a sentence for people that says what to do next."""

from collections.abc import Mapping

from services.feedback.core.walk import CONFLICT, NO_CLASS, NO_PREDICTION, ORPHAN, STALE

REASONS: Mapping[int, tuple[str, str]] = {
    CONFLICT: (
        "label.conflict",
        "the event has another label already, which stands; send a correction where the declaration has one",
    ),
    ORPHAN: ("label.orphan", "its event did not come within the hold; check the id, or send the event first"),
    STALE: ("label.stale", "its event is older than horizon and hold; declare a longer horizon or hold"),
    NO_PREDICTION: ("label.unpredicted", "its event got no prediction; see the dead letters of inference"),
    NO_CLASS: ("label.class", "the label is none of the declared classes; send a declared one"),
}
