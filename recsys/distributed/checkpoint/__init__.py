"""Checkpoints as folders of shards, by ``torch.distributed.checkpoint``; files of one are read too.

A checkpoint is what Lightning hands over: a nested dictionary. Its large tensors are weights and
optimiser states (``TENSOR_PARTS``); the rest is small and each rank's own, such as the state of its
loader.
"""
