"""Registration of retinal pictures: features on vessels, search, refinement, deformation."""
