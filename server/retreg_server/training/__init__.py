"""Training: synthetic images, losses, and one recipe for each model."""
