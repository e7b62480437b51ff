"""A model that knows nothing and costs what a real one costs: for runs that check or time the path, not it."""

import time

import numpy as np

from services.cli.journey import Journey
from services.retrainer.core.announce import announce, next_numbers
from services.retrainer.core.train import Dataset, Spec, train
from services.retrainer.releases import ModelsTopic
from shared.models.building import Features
from shared.models.manifest import Mlp
from shared.models.signing import KeyFolder
from shared.settings import home
from shared.store.artefacts import ArtefactStore


def announce_untrained(journey: Journey) -> None:
    """Announce a model of the declared architecture fitted to noise: it costs what a real one costs."""
    pipeline = journey.pipeline
    random = np.random.default_rng(0)
    width = len(pipeline.feature_names)
    data = Dataset(
        features=Features(pipeline.feature_names, pipeline.feature_fingerprint),
        matrix=random.normal(size=(2_000, width)),
        labels=random.random(2_000) < 0.1,
        manifest={"kind": "noise"},
    )
    artefact = train(data, Spec(Mlp(inputs=width, hidden=pipeline.model.hidden), epochs=1), seed=0)
    ArtefactStore(journey.platform.artefacts_url).put(artefact)
    topic = ModelsTopic(journey.platform.kafka, pipeline, journey.schema_ids)
    numbers = next_numbers(pipeline.model.name, (each.announcement for each in topic.read()))
    key = KeyFolder(home() / "keys").signer()
    topic.write(announce(artefact, pipeline.model.name, numbers, key, time.time_ns() // 1_000_000))
