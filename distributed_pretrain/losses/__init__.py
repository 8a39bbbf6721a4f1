"""Losses: pure functions of tensors that give a scalar, computed in at least float32.

Masks are True where something is real. Samples whose `sample_mask` is False leave the loss and its
mean, which is one over the samples of all ranks: the average of the ranks' losses, and of their
gradients, is that of one process with the whole batch.
"""
