"""Classes from outside the packages, each used as `FILE.py:Class` where a registry's key goes."""
