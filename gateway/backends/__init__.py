"""The engines behind the gateway. To add one with its own dialect: one file here that implements `Backend`."""
