"""Measure a served model: send it problems, grade its replies, report accuracy against cost."""
