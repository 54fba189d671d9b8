"""What all routes share: keys, request ids, error bodies, streams and hang-ups."""
