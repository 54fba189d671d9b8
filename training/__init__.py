"""Makes the served model and its scorer better, and measures both.

The gateway is never imported, only asked over HTTP.
"""
