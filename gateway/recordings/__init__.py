"""Recorded requests: the writer, feedback on them, and their grading for replay."""
