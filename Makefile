# The verbs of development; each is a script that sets up its own environment.
.PHONY: check test bench docs clean

check: # style, types, import layers, spelling
	scripts/check

test: # all of check, and the whole suite
	scripts/test

bench: # shmstore next to its rivals, in a few minutes; scripts/bench alone is the recorded run
	scripts/bench --quick

docs: # that the documents describe the code
	scripts/test tests/test_docs.py

clean: # everything that a build or a test run leaves in the tree
	rm -rf .venv .venv-bench build dist *.egg-info htmlcov .coverage .coverage.* .hypothesis .*_cache
	rm -f shmstore/_native.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
