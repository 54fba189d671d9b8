"""A reasoning model of three million parameters, made from nothing: small enough to train on two cores."""
