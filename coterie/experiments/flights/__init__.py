"""Episodes of a swarm on record: flown, kept and drawn."""
