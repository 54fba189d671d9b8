"""The engine that comes along: llama.cpp in a process of its own."""
