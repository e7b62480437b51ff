"""The kinds of model that a retraining tries: networks, boosted trees and an online learner, and their choice."""
