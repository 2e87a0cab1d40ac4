"""One module per command: `python -m openrlhf_prm.cli.<command>`."""
