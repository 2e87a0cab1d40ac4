"""Rollouts that come back with their steps and step scores."""
