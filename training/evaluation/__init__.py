"""Asks a served model and measures its answers."""
