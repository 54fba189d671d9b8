"""The service: OpenAI's wire format in, inference engines out."""
