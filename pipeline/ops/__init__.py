"""Pure functions on boxes, masks and suppression, used by models and metrics alike."""
