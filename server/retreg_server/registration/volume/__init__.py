"""Registration of volumes: rotation search, Gauss-Newton on local descriptors, deformation."""
