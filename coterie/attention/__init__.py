"""The attention core: one formula, a few kernels, statistics that say which token and which agent deserves credit."""
