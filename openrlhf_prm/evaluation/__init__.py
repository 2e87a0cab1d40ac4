"""How good a policy is, and how much a process reward model adds to it at test time."""
