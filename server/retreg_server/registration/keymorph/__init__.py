"""KeyMorph: transforms in closed form from learned keypoints; shared by heads and retinas."""
