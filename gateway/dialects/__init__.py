"""Wire formats of clients: each turns a body into our request, and our events into its reply."""
