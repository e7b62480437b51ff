"""A retrainer without a broker: the ledger, runs.v1 and commands.v1 in memory, training in this process."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from services.retrainer.core.triggers import Trigger
from services.retrainer.kept import Kept
from services.retrainer.ledger import LINEAGE, Slab
from services.retrainer.process import result_of
from services.retrainer.propose import Proposal
from services.retrainer.runs import Book, Step
from services.retrainer.steps import Means, Place, Runner
from services.retrainer.training import answer
from shared.codec.batch import Batch, Strings
from shared.codec.program import Program, compile_program
from shared.contracts.generated import labeled_schema
from shared.contracts.pipeline import Pipeline, parse_pipeline
from shared.contracts.policies import RetrainPolicy
from shared.models.building import Features, untrained
from shared.runtime.tables import empty_rows
from shared.store.artefacts import ArtefactStore
from shared.topics import LABELED


def _record(name: str, fields: Mapping[str, str]) -> str:
    """An Avro record with a doc everywhere."""
    time = {"type": "long", "logicalType": "timestamp-millis"}
    said = [{"name": k, "type": time if v == "time" else v, "doc": "A field."} for k, v in fields.items()]
    return json.dumps(
        {"type": "record", "name": name, "namespace": "t.v1", "doc": "A record.", "fields": said}
    )


KEYS = {"id": "string", "who": "string", "at": "time"}
EVENT = _record("Event", {**KEYS, "a": "double", "b": "double", "c": "double"})
LABEL = _record("Label", {**KEYS, "what": "string"})
TOML = """
[pipeline]
name = "%(name)s"
partitions = 2
[event]
id = "id"
time = "at"
key = "who"
[label]
id = "id"
time = "at"
field = "what"
classes = [%(classes)s]
horizon = "1h"
[[entity]]
name = "who"
key = "who"
[[feature]]
name = "a"
expression = "a"
[[feature]]
name = "b"
expression = "b"
[[feature]]
name = "c"
expression = "c"%(categories)s
[model]
name = "small"
%(model)s
%(decisions)s
[[policy.slice]]
name = "high"
expression = "a > 0.5"
[policy.retrain]
min_rows = 60
window_rows = 400
every_labels = 100
kinds = [%(kinds)s]
time_limit = "%(time_limit)s"
memory = "%(memory)s"
%(retrain)s
"""
DECISIONS = '[[model.decision]]\nlabel = "no"\nfrom = 0.0\n[[model.decision]]\nlabel = "yes"\nfrom = 0.5'


def texts_of(
    name: str = "small",
    classes: Sequence[str] = ("no", "yes"),
    kinds: Sequence[str] = ("torch",),
    time_limit: str = "1m",
    memory: str = "4GiB",
    categories: str = "",
    model: str = "",
    retrain: str = "",
) -> dict[str, str]:
    """The files of a pipeline of three plain features that learns."""
    toml = TOML % {
        "name": name,
        "classes": ", ".join(f'"{each}"' for each in classes),
        "kinds": ", ".join(f'"{each}"' for each in kinds),
        "decisions": DECISIONS if len(classes) == 2 else "",
        "time_limit": time_limit,
        "memory": memory,
        "categories": categories,
        "model": model,
        "retrain": retrain,
    }
    return {"pipeline.toml": toml, "event.avsc": EVENT, "label.avsc": LABEL}


def declared(classes: Sequence[str] = ("no", "yes"), kinds: Sequence[str] = ("torch",)) -> Pipeline:
    """Such a pipeline."""
    return parse_pipeline(texts_of(classes=classes, kinds=kinds), "small", "small")


def write_declaration(folder: Path, name: str, **more: str) -> None:
    """The files of such a pipeline in a folder."""
    folder.mkdir(parents=True)
    for file, text in texts_of(name, **more).items():
        (folder / file).write_text(text)


def policy_of(pipeline: Pipeline) -> RetrainPolicy:
    """Its [policy.retrain]."""
    assert pipeline.policy.retrain is not None
    return pipeline.policy.retrain


def rows_of(pipeline: Pipeline, rows: int, seed: int = 0, **more: Any) -> Batch:
    """Ledger rows whose class follows from the first feature; `more` replaces columns."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, 3))
    classes = pipeline.class_count
    edges = np.quantile(matrix[:, 0], np.arange(1, classes) / classes) if rows else np.zeros(classes - 1)
    label = np.searchsorted(edges, matrix[:, 0] + 0.2 * rng.normal(size=rows))
    index = np.arange(rows, dtype=np.int64)
    program = compile_program(labeled_schema(pipeline))
    columns: dict[str, Any] = {
        "sequence": index,
        "order_time": index * 1_000,
        "event_time": index * 1_000 - 500,
        "event_id": Strings.of([b"e%d" % i for i in index]),
        "label_class": label.astype(np.int64),
        "previous_class": np.full(rows, -1),
        "label_source": Strings.of([(b"bank", b"shop")[i % 2] for i in index.tolist()]),
        "probabilities": Strings.repeated(b"\0", rows),
        "role": Strings.repeated(b"champion", rows),
        "model_version": np.ones(rows, np.int64),
        "event_partition": index % 2,
        "event_offset": index,
        "label_offset": index,
        "vector_offset": index,
        "prediction_offset": index,
        "input_offset": index * 2,
        **{f"features.{name}": matrix[:, j].copy() for j, name in enumerate("abc")},
    }
    return empty_rows(program, rows).having(**{**columns, **more})


class MemoryLedger:
    """Rows in memory; a row's offset is twice its sequence, as if every row were followed by a mark."""

    def __init__(self, pipeline: Pipeline, batch: Batch) -> None:
        self.pipeline, self.batch = pipeline, batch
        self.program: Program = compile_program(labeled_schema(pipeline))

    def topics(self) -> Mapping[str, tuple[str, int]]:
        names = [topic.of(self.pipeline.name) for topic in (LABELED, *LINEAGE)]
        return {name: (f"id-{number}", number) for number, name in enumerate(names)}

    def read(self, start: int, first: int, last: int) -> Slab:
        assert start <= 2 * first
        return Slab(self.batch.take(np.arange(first, last + 1)), 2 * last + 1)

    def begin(self) -> int:
        return 0

    def end(self) -> int:
        return self.batch.rows - 1


class Killed(BaseException):
    """What a kill leaves: nothing behind it ran."""


class Fuse:
    """Kills at its n-th spark."""

    def __init__(self, sparks: int = 10**9) -> None:
        self.left = sparks

    def spark(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


class MemoryJournal(Book):
    """runs.v1: a kill comes before a record is written or right after."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.fuse = fuse

    def refresh(self) -> None:
        """Nobody else writes."""

    def write(self, step: Step) -> None:
        self.fuse.spark()
        self.steps.append(step)
        self.add(step)
        self.fuse.spark()

    def told(self, run: str) -> list[tuple[str, str]]:
        return [(step.step, step.state) for step in self.steps if step.run == run]


class MemoryProposals:
    """commands.v1."""

    def __init__(self, fuse: Fuse) -> None:
        self.sent: list[Proposal] = []
        self.fuse = fuse

    def end(self) -> int:
        return len(self.sent)

    def find(self, command: str, start: int) -> Proposal | None:
        return next((each for each in self.sent[start:] if each.id == command), None)

    def send(self, proposal: Proposal) -> None:
        self.fuse.spark()
        self.sent.append(proposal)
        self.fuse.spark()


class Outlook:
    """A champion that knows nothing, and no drift."""

    def __init__(self, champion: dict[str, Any]) -> None:
        self._champion = champion
        self.asked: list[str] = []

    def champion(self, after: str) -> dict[str, Any]:
        self.asked.append(after)
        return dict(self._champion)

    def since(self, sequence: int) -> int:  # noqa: ARG002
        return -1


class InlineTrainer:
    """The training process's work in this process, counted."""

    def __init__(self, fuse: Fuse, done: list[str]) -> None:
        self.fuse, self.done = fuse, done

    def ask(self, job: dict[str, Any], limit_s: float) -> Any:  # noqa: ARG002
        self.fuse.spark()
        done = result_of(answer(job))
        self.done.append(job["do"])
        self.fuse.spark()
        return done

    def close(self) -> None:
        """Nothing to let go of."""


class Loop:
    """Everything behind a runner; `runner` makes one as after a start."""

    def __init__(self, folder: Path, pipeline: Pipeline, batch: Batch) -> None:
        self.fuse = Fuse()
        self.pipeline, self.folder = pipeline, folder
        self.ledger = MemoryLedger(pipeline, batch)
        self.journal, self.proposals = MemoryJournal(self.fuse), MemoryProposals(self.fuse)
        self.kept = Kept(f"{folder}/kept")
        self.done: list[str] = []
        self.store = ArtefactStore(f"{folder}/artefacts")
        features = Features(pipeline.feature_names, pipeline.feature_fingerprint)
        digest = self.store.put(untrained(features, pipeline.class_count))
        self.outlook = Outlook({"digest": digest, "version": 1, "sequence": 1, "offset": 0})
        self.means = Means()
        self.trainer: Callable[[], Any] = lambda: InlineTrainer(self.fuse, self.done)

    def runner(self) -> Runner:
        return Runner(
            self.pipeline,
            policy_of(self.pipeline),
            Place(self.kept, f"{self.folder}/artefacts", self.folder / "board"),
            self.means,
            self.ledger,
            self.journal,
            self.proposals,
            self.outlook,
            self.trainer,
        )


def labels(sequence: int) -> Trigger:
    """A trigger by the number of outcomes."""
    return Trigger(f"labels-{sequence}", "labels", sequence, sequence * 1_000)


def alarm_record(name: str, sequence: int, since: int) -> dict[str, Any]:
    """A record of drift.v1 that asks for a retraining."""
    return {
        "id": name,
        "family": "performance",
        "detector": "adwin",
        "subject": "error",
        "sequence": sequence,
        "order_time": sequence * 1_000,
        "since_sequence": since,
        "magnitude": 0.2,
        "threshold": 0.1,
        "reference": "{}",
        "current": "{}",
        "triggers": True,
        "detail": "the error rose",
    }


def train_command(name: str, **parameters: object) -> dict[str, Any]:
    """A `train` command on commands.v1."""
    return {
        "id": name,
        "kind": "train",
        "model_name": "small",
        "actor": "somebody",
        "reason": "to see",
        "evidence": b"",
        "parameters": json.dumps(parameters),
        "at": 77,
    }
