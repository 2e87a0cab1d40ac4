"""Trainers on OpenRLHF's DeepSpeed strategy: PPO with process rewards, and process reward models."""
