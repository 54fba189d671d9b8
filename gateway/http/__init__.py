"""What every route shares: authentication, error bodies, streaming and hang-ups."""
