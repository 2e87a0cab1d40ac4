"""Learning from process rewards with OpenRLHF: step scores, process rewards, advantages, annotation, PRM training.

Importing this package imports nothing heavy.
"""
