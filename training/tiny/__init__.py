"""A reasoning model of three million parameters, made from scratch: small enough to train on two cores."""
