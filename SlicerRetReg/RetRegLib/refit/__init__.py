"""The transform that follows edited keypoints."""
