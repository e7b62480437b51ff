"""A model that knows nothing and costs what a real one costs: for runs that check or time the path, not it."""

import time

import numpy as np

from services.cli.journey import Journey
from services.cli.models import spec_of
from services.retrainer.core.announce import announce, next_numbers
from services.retrainer.core.train import Dataset, train
from services.retrainer.releases import ModelsTopic
from shared.models.announcement import Announcement
from shared.models.building import Features
from shared.models.manifest import Artefact
from shared.models.signing import KeyFolder
from shared.store.artefacts import ArtefactStore

ROWS = 400


def announce_untrained(journey: Journey, seed: int = 0) -> Announcement:
    """Fit a model to noise, store and announce it; a second later the workers score with it.

    The scores mean nothing but spread over (0, 1). The same seed gives the same digest. May be called before
    the journey is entered, and again for a next version.
    """
    return announce_artefact(journey, untrained_model(journey, seed))


def untrained_model(journey: Journey, seed: int = 0) -> Artefact:
    """A model of the pipeline's declared architecture, fitted to random vectors."""
    pipeline = journey.pipeline
    names = pipeline.feature_names
    random = np.random.default_rng(seed)
    matrix = random.lognormal(1.0, 1.5, (ROWS, len(names)))
    labels = np.log(matrix) @ random.normal(size=len(names)) > 0.5
    features = Features(names, pipeline.feature_fingerprint)
    data = Dataset(features, matrix, labels, {"rows": "random", "seed": seed})
    return train(data, spec_of(pipeline), seed)


def announce_artefact(journey: Journey, artefact: Artefact) -> Announcement:
    """Store an artefact and announce it as the next version of the pipeline's model."""
    pipeline, platform = journey.pipeline, journey.platform
    ArtefactStore(platform.artefacts_url).put(artefact)
    topic = ModelsTopic(platform.kafka, pipeline, journey.schema_ids)
    numbers = next_numbers(pipeline.model.name, (each.announcement for each in topic.read()))
    key = KeyFolder.of().signer()
    said = announce(artefact, pipeline.model.name, numbers, key, time.time_ns() // 1_000_000)
    topic.write(said)
    return said
