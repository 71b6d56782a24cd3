"""As much of torchvision as the diffusers training script uses, for machines without it.

`benchmarks/train_side.py` puts this on the path only where torchvision is not installed.
"""
