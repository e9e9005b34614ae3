"""Public complaints about tools like this one, each shown by a small input: README.md is the index."""
