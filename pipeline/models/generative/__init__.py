"""Models of images that can be sampled."""
