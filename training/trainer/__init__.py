"""What needs torch: loading models, drawing from them, supervised and reinforcement steps (TRL's trainers)."""
