"""Registration of heads: rotation search, Gauss-Newton on local descriptors, deformation."""
