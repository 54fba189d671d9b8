"""The engines behind the gateway. To add one with its own dialect: a file here that implements `Backend`."""
