"""Training what weighs samples: collected from the policy, tried in order, released by a gate alone."""
