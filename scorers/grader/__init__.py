"""Reads answers and compares them: extraction, parsing, equality, worker pool."""
