"""PRM-guided PPO inside the host: flags, rollouts, mixed rewards, experience, trainers, the online PRM."""
