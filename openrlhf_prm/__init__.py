"""Learning from process rewards with OpenRLHF: step scores, process rewards, advantages, annotation, PRM training.

Importing this package imports nothing heavy.
"""

import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # for the reason that stands in vllm_prm/__init__.py
