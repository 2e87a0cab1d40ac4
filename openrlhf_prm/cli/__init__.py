"""One module per command: `openrlhf-prm COMMAND` (`main.py`), or `python -m openrlhf_prm.cli.MODULE`."""
