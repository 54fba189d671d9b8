"""Decides what to request from a model and when to stop. Pure: no I/O."""
