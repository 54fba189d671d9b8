"""Train scorers on the policy's own samples; a release gate decides which one may serve."""
