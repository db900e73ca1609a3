"""Machines that try to break what shmstore promises: ``scripts/torture --help``.

One module per promise, each with ``run(budget) -> Report``; a short form of each is in ``tests/``.
"""
