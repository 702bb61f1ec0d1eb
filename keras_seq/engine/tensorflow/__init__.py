"""The engine on TensorFlow."""

from keras_seq.engine.tensorflow.arrays import gather, iterate
from keras_seq.engine.tensorflow.gradients import custom_gradient_decorator as custom_gradient
from keras_seq.engine.tensorflow.levels import scan_levels
from keras_seq.engine.tensorflow.linear import complex_of, linear_loop, linear_loop_is_cheap
from keras_seq.engine.tensorflow.random import uniform
from keras_seq.engine.tensorflow.step import step_jacobian, step_jvp, step_vjp
from keras_seq.engine.tensorflow.strategy import scan

__all__ = [
    "complex_of",
    "custom_gradient",
    "gather",
    "iterate",
    "linear_loop",
    "linear_loop_is_cheap",
    "scan",
    "scan_levels",
    "step_jacobian",
    "step_jvp",
    "step_vjp",
    "uniform",
]
