"""Presets of the experiments, as named instances of frozen dataclasses."""
