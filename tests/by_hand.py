"""Optimisers and losses in numpy and float64, written down from the papers: golden steps are computed with these."""

import math

import numpy as np


def softmax(logits):
    """Probabilities of every row."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def through_softmax(p, grad):
    """The gradient of the logits of `p = softmax(logits)` from that of `p`."""
    return p * (grad - (p * grad).sum(-1, keepdims=True))


def cross_entropy(logits, labels, smoothing=0.0):
    """Mean cross-entropy against smoothed labels, and its gradient with respect to the logits."""
    count, classes = logits.shape
    targets = (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes
    p = softmax(logits)
    return -(targets * np.log(p)).sum() / count, (p - targets) / count


def norm(grads):
    """Global norm of a dictionary of arrays."""
    return math.sqrt(sum((grad**2).sum() for grad in grads.values()))


def clipped(grads, clip):
    """The dictionary scaled down to a global norm of at most `clip`, which has to be felt."""
    if clip is None:
        return grads
    length = norm(grads)
    assert length > clip, f"the clip of {clip} is not active at a norm of {length}"
    return {name: grad * clip / length for name, grad in grads.items()}


class Sgd:
    """SGD as PyTorch has it: clip, add the weight decay, then momentum. What is not `used` stays, buffer and all."""

    def __init__(self, momentum, weight_decay, clip=None, *, nesterov=False):
        self.momentum, self.weight_decay, self.clip, self.nesterov = momentum, weight_decay, clip, nesterov
        self.buffer = {}

    def step(self, params, grads, rate, used=None):
        """The parameters after a step, dictionaries of arrays."""
        grads, new = clipped(grads, self.clip), dict(params)
        for name in params if used is None else used:
            grad = grads[name] + self.weight_decay * params[name]
            buffer = self.buffer[name] = self.momentum * self.buffer.get(name, 0.0) + grad
            new[name] = params[name] - rate * (grad + self.momentum * buffer if self.nesterov else buffer)
        return new


class Adam:
    """Adam with coupled weight decay, one array; the count goes on where rows that are not `used` stay."""

    def __init__(self, b1, b2, weight_decay=0.0, clip=None):
        self.b1, self.b2, self.weight_decay, self.clip = b1, b2, weight_decay, clip
        self.count, self.m, self.v = 0, 0.0, 0.0

    def step(self, params, grad, rate, used=True):
        """The parameters after a step; `used` broadcasts against them."""
        grad = clipped({"": grad}, self.clip)[""] + self.weight_decay * params
        self.count += 1
        self.m = np.where(used, self.b1 * self.m + (1 - self.b1) * grad, self.m)
        self.v = np.where(used, self.b2 * self.v + (1 - self.b2) * grad**2, self.v)
        m, v = self.m / (1 - self.b1**self.count), self.v / (1 - self.b2**self.count)
        return np.where(used, params - rate * m / (np.sqrt(v) + 1e-8), params)
