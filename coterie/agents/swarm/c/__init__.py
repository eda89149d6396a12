"""The pieces of a policy in C: `export_c` puts them together and adds sizes and weights."""
