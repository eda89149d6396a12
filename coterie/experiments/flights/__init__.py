"""Episodes of a swarm on record: flown, kept, drawn, and played back on a page."""
