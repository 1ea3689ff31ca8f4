"""For all tests: a property is true or false, and how long a busy machine takes to find out is no part of it."""

from hypothesis import settings

settings.register_profile("dimnode", deadline=None)
settings.load_profile("dimnode")
