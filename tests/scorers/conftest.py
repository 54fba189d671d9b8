"""Property tests here have no deadline: how fast the machine is says nothing about the grader."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
