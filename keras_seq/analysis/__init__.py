"""Looking into a memory, and at what a model has left unexplained."""

from keras_seq.analysis.attention import plot_alignment, plot_attended
from keras_seq.analysis.certificates import bibo_certificate, contraction_certificate
from keras_seq.analysis.fixed_points import fixed_points
from keras_seq.analysis.forecast_plots import plot_correlation, plot_forecast_errors, plot_forecasts
from keras_seq.analysis.forecasts import fit_percentage, forecast_errors
from keras_seq.analysis.internals import plot_internals
from keras_seq.analysis.intervals import ensemble_interval, quantile_interval
from keras_seq.analysis.jacobians import gradient_flow, step_jacobians, step_spectrum
from keras_seq.analysis.linear import linear_response, superposition_error
from keras_seq.analysis.lyapunov import lyapunov_spectrum
from keras_seq.analysis.memory import memory_curves, memory_length
from keras_seq.analysis.orders import fit_arx, select_orders
from keras_seq.analysis.plots import (
    plot_gate,
    plot_gradient_flow,
    plot_lyapunov_spectrum,
    plot_memory_curves,
    plot_spectrum,
    plot_state_gradients,
)
from keras_seq.analysis.report import stability_report
from keras_seq.analysis.residuals import residual_tests
from keras_seq.analysis.solutions import newton_report
from keras_seq.analysis.splits import block_split, interleaved_split
from keras_seq.analysis.state_gradients import state_gradients

__all__ = [
    "bibo_certificate",
    "block_split",
    "contraction_certificate",
    "ensemble_interval",
    "fit_arx",
    "fit_percentage",
    "fixed_points",
    "forecast_errors",
    "gradient_flow",
    "interleaved_split",
    "linear_response",
    "lyapunov_spectrum",
    "memory_curves",
    "memory_length",
    "newton_report",
    "plot_alignment",
    "plot_attended",
    "plot_correlation",
    "plot_forecast_errors",
    "plot_forecasts",
    "plot_gate",
    "plot_gradient_flow",
    "plot_internals",
    "plot_lyapunov_spectrum",
    "plot_memory_curves",
    "plot_spectrum",
    "plot_state_gradients",
    "quantile_interval",
    "residual_tests",
    "select_orders",
    "stability_report",
    "state_gradients",
    "step_jacobians",
    "step_spectrum",
    "superposition_error",
]
