"""The mechanisms of the literature, a file for each family, each a short declaration on the attention core."""
