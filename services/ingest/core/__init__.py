"""The door as pure functions and folds: no clock, no broker, no log."""
