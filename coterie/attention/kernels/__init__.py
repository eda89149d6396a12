"""The fused kernels: one module per kernel and form. `coterie.attention` calls them; they check nothing."""
