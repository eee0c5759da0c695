"""A run looked at before it is trained: its data, its loss, its gradients and its learning rate."""
