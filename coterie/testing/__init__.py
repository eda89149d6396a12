"""For tests of Coterie and of its plugins: a scripted engine and conformance checks."""
