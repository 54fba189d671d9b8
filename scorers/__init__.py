"""Reads answers, scores samples and takes votes. Imports no other package of ThinkGate.

To add a vote, see `scorers.votes`. To add a scorer: write one file here, and add one line to `SCORERS`
in `gateway/runs/scorers.py`.
"""
