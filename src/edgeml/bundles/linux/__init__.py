"""A bundle as two Linux packages: one with the model, one with the runtime that any number of models share.

They are two because a runtime fix must reach devices without the model, and a model without the runtime. What a device
runs is neither package's own folder but `/usr/lib/edgeml/live/`, where a package's files appear, as hard links, once
the self-test has passed with them: so a version that fails never replaces the one that works, nor after a restart.
"""
