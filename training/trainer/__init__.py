"""Loads models, samples from them, and trains them by TRL: everything of training that needs torch."""
