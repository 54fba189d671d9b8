"""Engines and how to talk to them. To add a kind of engine, see `gateway.upstreams.adapters`."""
