"""Finds, parses and compares answers: extraction, parsing, equality, worker pool."""
