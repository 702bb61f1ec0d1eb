"""The engine on TensorFlow."""

from keras_seq.engine.tensorflow.random import uniform
from keras_seq.engine.tensorflow.scan import scan
from keras_seq.engine.tensorflow.step import step_jacobian, step_jvp, step_vjp

__all__ = ["scan", "step_jacobian", "step_jvp", "step_vjp", "uniform"]
