"""Pure decisions of reinforcement learning: advantages, filters, length schedule, guards, stopping."""
