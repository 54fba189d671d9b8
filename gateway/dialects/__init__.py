"""Wire formats: one module each, to our request and from our events."""
