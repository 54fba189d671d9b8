"""Compares a new model with the old one and moves traffic to it."""
