"""Measures a result on the images; knows no pipeline."""
