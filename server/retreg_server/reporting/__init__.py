"""Files and pictures of results: the result folder, overlays, figures of maps."""
