"""Rejection sampling: a policy's own right answers, the best and different ones, as data for supervised fine-tuning
(Yuan et al. 2023, arXiv:2308.01825; ranked by step scores as in Math-Shepherd, arXiv:2312.08935).
"""
