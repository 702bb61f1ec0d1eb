"""What the engine uses of TensorFlow that is not public, each with its reason; tests/engine/test_private.py holds it so."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext


def compiled_by_xla() -> bool:
    """Whether what is traced now will be compiled by XLA. TensorFlow says it to no one, and what pays differs."""
    return not tf.executing_eagerly() and GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def take_gradient(name: str) -> Callable[..., Any]:
    """The gradient function registered under this name; the registry forgets it.

    What `tf.custom_gradient` registers in a graph stays for ever, and the graph with it: there is no public way out.
    """
    found = gradient_registry.lookup(name)
    forget_gradient(name)
    return found


def forget_gradient(name: str) -> None:
    """Let the registry forget a gradient function."""
    gradient_registry._registry.pop(name, None)
