"""Benchmarks of the gateway and its training; README.md beside this file says how to run them."""
