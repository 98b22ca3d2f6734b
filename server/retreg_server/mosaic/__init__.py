"""Overlapping pictures of one retina as one picture: overlaps, places, blending."""
