"""The endpoints: each module returns one router that uses the app's service."""
