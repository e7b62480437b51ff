"""The pure part of inference: no clock, no broker, no file.

`registry` folds announcements into what to load; `scoring` turns vectors into scores; `decide` turns scores
into business categories; `fold` turns batches of features into batches of predictions.
"""
