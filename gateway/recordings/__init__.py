"""The file of answered requests: what writes it, what reads it, and feedback on it."""
