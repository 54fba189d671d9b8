"""Training data: sources of problems, readers, the data mixture, prompts and the contamination check."""
