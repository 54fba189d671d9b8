"""What an answer is and which one wins. Imports nothing else of ThinkGate's."""
