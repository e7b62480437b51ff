"""Composition root: the controller of one pipeline."""

import argparse
from collections.abc import Callable

from schemas import platform_schema
from services.controller.core.book import Rules
from services.controller.core.controller import Controller
from services.controller.journal import Ends, read_state
from services.controller.metrics import DecisionMetrics
from services.controller.settings import ControllerSettings
from services.controller.unit import ControllerUnit, Inputs
from services.controller.writing import Outlet
from shared.contracts.pipeline import Pipeline, find_pipeline, load_pipeline
from shared.models.announcement import Announcement
from shared.models.signing import KeyFolder, LiveKeys, sign
from shared.runtime.entry import Start, guarded, prepare, run
from shared.runtime.stage import Stage
from shared.runtime.tables import Table
from shared.runtime.unit import Unit
from shared.settings import PlatformSettings
from shared.store.artefacts import ArtefactStore
from shared.topics import AUDIT, COMMANDS, MODELS, REPLAYS, SCORES


def rules_of(pipeline: Pipeline) -> Rules:
    """What the declaration says of models."""
    policy = pipeline.policy
    return Rules(
        model=pipeline.model.name,
        fingerprint=pipeline.feature_fingerprint,
        classes=pipeline.class_count,
        gate=policy.gate,
        promotion=policy.promotion,
        rollback=policy.rollback,
    )


def build(start: Start, settings: ControllerSettings) -> Stage:
    """The stage; its state is read from the log when its partition comes."""
    pipeline, kafka = start.pipeline, start.platform.kafka
    folder = KeyFolder.of(settings.keys)
    key, trusted = folder.signer(), LiveKeys(folder)
    inputs = Inputs(
        _table(start, COMMANDS.of(pipeline.name), "command"),
        _table(start, SCORES.of(pipeline.name), "score"),
        _table(start, AUDIT.of(pipeline.name), "audit"),
        REPLAYS.of(pipeline.name),
    )
    models = _table(start, MODELS.of(pipeline.name), "model")

    def signed(said: Announcement) -> Announcement:
        return sign(said, key)

    outlet = Outlet(models, inputs.audit, pipeline.model.name, pipeline.feature_fingerprint, signed)
    metrics, ends = DecisionMetrics.on(start.metrics), Ends(kafka)
    units: list[ControllerUnit] = []

    def make_unit(number: int) -> Unit:
        del number  # every input has one partition
        state = read_state(kafka, inputs.audit, models, pipeline.model.name, trusted)
        untrained = _untrained(start) if state.champion is None else ""
        metrics.see([], state)
        unit = ControllerUnit(inputs, outlet, Controller(rules_of(pipeline), state), untrained, metrics.see)
        units[:] = [unit]
        return unit

    return Stage(
        pipeline.name,
        "controller",
        "controller",
        (*inputs.topics, inputs.replays),
        make_unit,
        compression="none",
        strangers=True,
        refresh=_confirming(units, ends),
    )


def _confirming(units: list[ControllerUnit], ends: Ends) -> Callable[[], None]:
    """Between two turns: tell a unit that waits for it whether it has read everything."""

    def refresh() -> None:
        for unit in units:
            asked = unit.asks()
            if asked is not None and ends.reached(dict(asked)):
                unit.confirm(asked)

    return refresh


def _untrained(start: Start) -> str:
    """Put the model that knows nothing into the store; its digest."""
    from shared.models.building import Features, untrained

    pipeline = start.pipeline
    features = Features(pipeline.feature_names, pipeline.feature_fingerprint)
    return ArtefactStore(start.platform.artefacts_url).put(untrained(features, pipeline.class_count))


def _table(start: Start, topic: str, schema: str) -> Table:
    return Table.of(topic, start.schema_ids[topic], platform_schema(schema))


def main() -> None:
    """Run until a signal asks to stop."""
    parser = argparse.ArgumentParser(prog="millrace-controller")
    parser.add_argument("--pipeline", required=True, help="name of a folder below schemas/")
    parser.add_argument("--slot", type=int, default=0, help="this worker's number")
    arguments = parser.parse_args()
    guarded(lambda: _serve(arguments.pipeline, arguments.slot))


def _serve(name: str, slot: int) -> None:
    settings = ControllerSettings()
    start = prepare(load_pipeline(find_pipeline(name)), PlatformSettings())
    run(start, build(start, settings), slot, settings.runtime)


if __name__ == "__main__":
    main()
