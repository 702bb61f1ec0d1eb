"""The engine on TensorFlow."""

from keras_seq.engine.tensorflow.levels import scan_levels
from keras_seq.engine.tensorflow.random import uniform
from keras_seq.engine.tensorflow.step import step_jacobian, step_jvp, step_vjp
from keras_seq.engine.tensorflow.strategy import scan

__all__ = ["scan", "scan_levels", "step_jacobian", "step_jvp", "step_vjp", "uniform"]
