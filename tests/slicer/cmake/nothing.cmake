# Slicer brings macros here; the stand-in defines its own in SlicerConfig.cmake.
