"""The pytest plugin: fixtures computed once in a run, read by all its processes from the store."""
