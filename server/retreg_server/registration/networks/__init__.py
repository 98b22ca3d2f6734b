"""Bare networks: tensors in, tensors out, normalised coordinates from edge to edge."""

