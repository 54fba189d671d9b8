"""What to ask a model for and when to stop asking: pure functions, no I/O."""
