"""Slicer's scene: nodes become images and transforms, results become nodes."""
