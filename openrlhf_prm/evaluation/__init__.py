"""How good a policy is, how much a process reward model adds to it at test time, and how good that model is."""
