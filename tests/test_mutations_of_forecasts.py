"""Faults made on purpose in residual tests, errors of forecasts, orders, splits and intervals."""

import pytest
from mutants import call, caught, choice, constant, mutate, named, op, statement, suite

from keras_seq.analysis import forecasts, intervals, orders, residuals, splits
from keras_seq.training import PinballLoss

pytestmark = [pytest.mark.deep, pytest.mark.mutation]


def of(file):
    return lambda test, *given: suite(f"analysis/test_{file}.py::{test}", *given)


residual, forecast, order, parted = (of(file) for file in ("residuals", "forecasts", "orders", "splits_and_intervals"))
MODELS = residual("test_correlations_are_those_of_statsmodels")
SMOOTH = residual("test_the_statistic_takes_in_how_an_input_correlates_with_itself")
ROWS = residual("test_rows_count_together_and_outputs_and_inputs_apart")
PRODUCTS = residual("test_tests_of_higher_order_are_correlations_of_products")
ALONE = forecast("test_errors_are_those_of_forecasts_one_by_one")
WILD = forecast("test_a_free_run_that_diverges_is_named_with_its_step")
BACK = forecast("test_what_comes_back_has_diverged_nevertheless")
FIT = forecast("test_the_fit_is_that_of_its_equation")
OTHERS = forecast("test_functions_layers_of_other_cells_and_closed_layers")
CRITERIA = order("test_criteria_are_those_of_statsmodels_less_a_constant")
MANY = order("test_many_outputs_and_inputs_in_rows")
LAYERS = order("test_layers_are_judged_as_linear_models_are")
HELD = order("test_errors_on_the_validation_series_are_those_of_the_layer")
BLOCKS = parted("test_blocks_are_contiguous_and_in_order")
PARTS = parted("test_no_step_is_in_two_parts_and_no_target_an_input_of_another_part", "blocks", (2, 1), 3)
ENSEMBLE = parted("test_an_ensemble_with_noise_covers_what_it_says")
QUANTILES = parted("test_quantiles_are_put_in_order")
PINBALL = suite("training/test_quantiles.py::test_its_value_is_that_of_the_equation", "float64", False)

MUTANTS = [
    (residuals, "residual_tests", op("/", 2), "confidence", [MODELS]),
    (residuals, "_with_itself", op("-", "steps", "tested"), "{0}", [MODELS]),
    (residuals, "_with_itself", op("-", "lags", "lost"), "{0}", [MODELS]),
    (residuals, "_with_signal", call("solve"), "{1}", [SMOOTH]),
    (residuals, "_with_signal", statement("e", "mean", nth=0), "lags = np.asarray(lags)", [PRODUCTS]),
    (residuals, "_centred", call("mean"), "values.mean(axis=1, keepdims=True)", [ROWS]),
    (forecasts, "forecast_errors", op("-", "ahead", 1, nth=0), "{0}", [ALONE]),
    (forecasts, "_ahead", call("append"), "found.append(np.zeros((rows, len(t) // rows, most, k)))", [ALONE]),
    (forecasts, "free_run", call("accumulate"), "_far(free, _bounds(y)).any(axis=2)", [BACK]),
    (forecasts, "_or", choice("value"), "float(value)", [WILD]),
    (forecasts, "_fit", call("mean"), "0", [FIT]),
    (
        forecasts,
        "forecaster_of",
        call("model", "initial_state"),
        "model(s[:, t.shape[1] :], return_state=False)",
        [OTHERS],
    ),
    (orders, "_criteria", op("*", 2, "p", nth=0), "p", [CRITERIA]),
    (orders, "_criteria", call("log"), "2", [CRITERIA]),
    (orders, "_criteria", op("**"), "{0}", [MANY]),
    (orders, "_judged", call("count_params"), "1", [LAYERS]),
    (orders, "_judged", call("mean"), "np.median(e**2)", [HELD]),
    (splits, "_masks", op("&"), "{0}", [PARTS]),
    (splits, "_masks", op(">="), "{0} > {1}", [BLOCKS]),
    (intervals, "ensemble_interval", constant(1, nth=0), "0", [ENSEMBLE]),
    (intervals, "quantile_interval", call("sort"), "{0}", [QUANTILES]),
    (PinballLoss, "call", op("-", "q", 1), "q", [PINBALL]),
]


@pytest.mark.parametrize(**named(MUTANTS))
def test_killed(owner, name, place, change, checks, monkeypatch):
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        caught(check)
