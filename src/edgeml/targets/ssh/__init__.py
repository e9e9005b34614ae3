"""A device on the network, reached by the system's own `ssh`: its keys, its configuration, its jump hosts."""
