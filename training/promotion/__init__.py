"""Promote a model: compare it with the current one, shift traffic step by step, watch, roll back."""
