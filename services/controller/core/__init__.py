"""The controller's decisions as a fold: no clock, no broker, no log."""
