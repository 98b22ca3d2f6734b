"""Numerical tools that know neither retina nor head."""
