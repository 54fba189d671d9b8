"""What needs torch: loading models, drawing from them, supervised and reinforcement steps by TRL."""
