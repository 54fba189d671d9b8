"""What operators see while the gateway works: its metrics."""
