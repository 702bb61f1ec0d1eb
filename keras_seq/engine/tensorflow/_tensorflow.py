"""What the engine uses of TensorFlow that is not public, each with its reason; tests/engine/test_private.py holds it so."""

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context
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


def tell_other_workers(message: str) -> None:
    """Let what the other workers of a cluster wait for fail with this message.

    Nothing public ends the sums over workers that one of them will never join; what has told so can join none any more.
    """
    with contextlib.suppress(tf.errors.OpError):  # where they have ended, or told so first
        context.context().report_error_to_cluster(tf.errors.ABORTED, message)
