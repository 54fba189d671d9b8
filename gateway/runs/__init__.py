"""One request run to its answer, free of HTTP."""
