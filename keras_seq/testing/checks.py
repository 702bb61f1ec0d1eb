"""All checks, in the order in which they are run: where several would fail, the plainest comes first."""

from keras_seq.testing import config, files, loops, masks, numerics, one_step, training

CHECKS = (
    config.check_config,
    one_step.check_shapes,
    one_step.check_project,
    one_step.check_repeatable,
    one_step.check_rows,
    one_step.check_one_by_one,
    loops.check_keras_loop,
    masks.check_nan,
    masks.check_masked_run,
    loops.check_keras_loop_masked,
    loops.check_modes,
    loops.check_finite_differences,
    loops.check_blocked,
    loops.check_chunks,
    loops.check_sizes,
    training.check_learned_states,
    training.check_dropout,
    training.check_internals,
    numerics.check_mixed,
    files.check_keras_file,
    files.check_saved_model,
)
