"""Training without a broker: rows in, artefact and announcement out; the same rows give the same bytes."""
