"""What Slicer's application adds to its data model, as far as RetReg uses it: for tests only."""
