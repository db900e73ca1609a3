"""The commands of the command line, one idea a file; ``shmstore.cli`` parses and runs them."""
