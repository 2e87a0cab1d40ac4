"""A process reward model from labelled steps: data set, heads, model, trainer, run."""
