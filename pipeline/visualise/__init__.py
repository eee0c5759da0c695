"""Pictures of data, of predictions and of what a model looks at."""
