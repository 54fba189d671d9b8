"""What all routes share: keys, request ids, error bodies, streams and client disconnects."""
