"""Finds the retina in a picture and the head in a volume."""
