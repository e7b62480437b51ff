"""Composition root: the retrainer of one pipeline."""

import argparse
import asyncio
from pathlib import Path

from services.retrainer.core.reign import Reign
from services.retrainer.kept import kept_of
from services.retrainer.ledger import KafkaLedger
from services.retrainer.live import Live
from services.retrainer.metrics import RetrainerMetrics
from services.retrainer.outlook import DriftGroup, KafkaOutlook
from services.retrainer.process import Bench
from services.retrainer.propose import KafkaProposals
from services.retrainer.releases import ModelsTopic
from services.retrainer.runs import KafkaJournal
from services.retrainer.service import Retraining
from services.retrainer.settings import RetrainerSettings
from services.retrainer.steps import Means, Place, Runner
from shared.contracts.pipeline import Pipeline, find_pipeline, load_pipeline
from shared.contracts.policies import RetrainPolicy
from shared.control.loop import Control
from shared.control.publisher import Publisher
from shared.control.records import Records
from shared.errors import Refused
from shared.models.signing import KeyFolder, LiveKeys
from shared.runtime.entry import Start, guarded, prepare
from shared.runtime.polled import Polled
from shared.settings import PlatformSettings, home
from shared.topics import COMMANDS, DRIFT, LABELED, REPLAYS, RUNS, SCORES

LIVE = "live"
"""Folder of what models come to in service, beside those of the runs."""


def build(
    start: Start, control: Control, settings: RetrainerSettings, publisher: Publisher
) -> tuple[Retraining, Bench]:
    """The handlers and the bench behind them; the handlers are on `control`."""
    pipeline, policy = start.pipeline, declared(start.pipeline)
    kafka, ids, url = start.platform.kafka, start.schema_ids, start.platform.artefacts_url
    alarms, commands, runs = (Records.of(topic, pipeline.name, ids) for topic in (DRIFT, COMMANDS, RUNS))
    ledger, kept = KafkaLedger.of(kafka, pipeline, ids), kept_of(url, pipeline.name)
    bench = Bench(policy.memory_bytes, settings.niceness, settings.threads, spare=settings.spare)
    journal = KafkaJournal(kafka, runs, publisher)
    labeled = LABELED.of(pipeline.name)
    journal.refresh()
    watched = "drift" in policy.on
    keys = LiveKeys(KeyFolder.of(settings.keys))
    outlook = KafkaOutlook(
        kafka,
        lambda: Reign(pipeline.model.name, pipeline.feature_fingerprint, keys),
        ModelsTopic(kafka, pipeline, ids),
        alarms,
        REPLAYS.of(pipeline.name),
        DriftGroup(kafka, f"millrace.{pipeline.name}.drift", labeled) if watched else None,
        lambda sequence: retraining.offset_of(sequence),
        settings.drift_wait_s,
        settings.verdict_wait_s,
        bench.leaving.is_set,
    )
    place = Place(kept, url, board_of(pipeline.name) if settings.tensorboard else None)
    proposals = KafkaProposals(kafka, commands, publisher)
    means = Means(settings.threads, settings.device)
    runner = Runner(pipeline, policy, place, means, ledger, journal, proposals, outlook, bench)
    retraining = Retraining(
        pipeline,
        policy,
        runner,
        journal,
        ledger,
        kept,
        bench,
        RetrainerMetrics.on(start.metrics),
        ledger.topics()[labeled][0],
        outlook.raised,
        settings.drift_wait_s,
    )

    @control.on(labeled)
    async def counted(polled: Polled) -> None:
        await retraining.labeled(ledger.table, polled)

    @control.on(alarms.topic, most=1)
    async def alarmed(polled: Polled) -> None:
        await retraining.alarmed(alarms, polled)

    @control.on(commands.topic, most=1)
    async def commanded(polled: Polled) -> None:
        await retraining.commanded(commands, polled)

    @control.beside
    async def leave() -> None:
        while not control.leaving:
            await asyncio.sleep(0.1)
        bench.leaving.set()

    return retraining, bench


def follow(start: Start, control: Control, live: Live) -> None:
    """Put the handler for scores.v1 on `control`."""
    scores = Records.of(SCORES, start.pipeline.name, start.schema_ids)

    @control.on(scores.topic)
    async def scored(polled: Polled) -> None:
        await live.scored(scores, polled)


def declared(pipeline: Pipeline) -> RetrainPolicy:
    """The pipeline's [policy.retrain]; Refused where there is none."""
    if pipeline.policy.retrain is None:
        raise Refused(
            f"{pipeline.name} declares no [policy.retrain]; without it nothing is trained by itself"
        )
    return pipeline.policy.retrain


def board_of(pipeline: str) -> Path:
    """Where TensorBoard finds a pipeline's runs."""
    return home() / "tensorboard" / pipeline


def main() -> None:
    """Run until a signal asks to stop."""
    parser = argparse.ArgumentParser(prog="millrace-retrainer")
    parser.add_argument("--pipeline", required=True, help="name of a folder below schemas/")
    parser.add_argument("--slot", type=int, default=0, help="this worker's number")
    arguments = parser.parse_args()
    guarded(lambda: _serve(arguments.pipeline, arguments.slot))


def _serve(name: str, slot: int) -> None:
    settings = RetrainerSettings()
    pipeline = load_pipeline(find_pipeline(name))
    declared(pipeline)
    start = prepare(pipeline, PlatformSettings())
    control = Control(start, "retrainer", slot, settings.control)
    publisher = Publisher(start.platform.kafka, COMMANDS.compression)
    _, bench = build(start, control, settings, publisher)
    live = Live(board_of(name) / LIVE)
    if settings.tensorboard:
        follow(start, control, live)
    bench.prepare()
    try:
        control.run()
    finally:
        live.close()
        bench.close()
        publisher.close()


if __name__ == "__main__":
    main()
