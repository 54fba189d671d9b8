"""Reads answers, scores samples and takes votes. Imports no other package of ThinkGate."""
