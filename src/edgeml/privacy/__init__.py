"""Whether a bundle leaves what it is asked anywhere: marked inputs go through it, and all it wrote is searched."""
