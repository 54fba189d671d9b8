"""What is measured, and against whom; README.md beside this file says how to run each."""
