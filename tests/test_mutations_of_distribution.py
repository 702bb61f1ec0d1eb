"""Faults made on purpose in training on several replicas, in its backups and in how workers find one another."""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest
from mutants import ROOT, call, caught, choice, constant, crashes, label, module, mutate, negated, op, statement, suite

from keras_seq.training import distributed, joint_loss, workers
from keras_seq.training.backup import Backup
from keras_seq.training.replica_means import ReplicaMeans

pytestmark = [pytest.mark.deep, pytest.mark.mutation]

CHECKS = "training/test_distributed.py"


def goes_on():
    with tempfile.TemporaryDirectory() as folder:
        test = module(CHECKS).test_a_broken_run_goes_on_at_the_batch_where_its_backup_was_made
        test(pathlib.Path(folder))


BROKEN = crashes(goes_on)
KERAS = crashes(suite(f"{CHECKS}::test_callbacks_hear_of_validation_what_they_hear_in_keras"))
STOPS = suite(f"{CHECKS}::test_a_callback_can_stop_it")
AGREE = suite(f"{CHECKS}::test_who_is_of_another_opinion_is_named")

IN_ONE = [
    (Backup, "_restore", op("!="), "False", [BROKEN]),
    (Backup, "on_train_batch_end", op(">="), "{0} > {1}", [BROKEN]),
    (Backup, "on_train_batch_end", op("+", within=call("_save")), "{0}", [BROKEN]),
    (Backup, "on_epoch_end", op("+"), "{0}", [BROKEN]),
    (Backup, "on_train_end", call("rmtree"), "None", [BROKEN]),
    (distributed, "_epoch", call("skip"), "data", [BROKEN]),
    (distributed, "_fit", choice("begin", nth=0), "{1}", [BROKEN]),
    (distributed, "_fit", call("on_test_begin"), "None", [KERAS]),
    (distributed, "_epoch", op("==", "train"), "False", [STOPS]),
    (workers, "agree", call("any"), "(everyone != everyone[0]).all(axis=1)", [AGREE]),
]

# the check of these is a case of replicas.py, in which they learn something else than one process does
IN_REPLICAS = [
    (distributed, "_shares", call("share"), "share(rows, replicas, 0)", "rows"),
    (joint_loss, "_joint", op("/", constant(1)), "1", "sums"),
    (joint_loss, "_joint", choice("differs"), negated, "masks"),
    (joint_loss, "_joint", op("==", "mean_with_sample_weight"), "False", "by weights"),
    (joint_loss, "_joint", call("divide_no_nan"), "number * 0 + 1 / replicas", "masks"),
    (joint_loss, "_joint", op("/", "own", "rows", within=statement("part", nth=2)), "1 / replicas", "rows"),
    (joint_loss, "_joint", op("*", "replicas", "part"), "{1}", "rows"),
    (joint_loss, "_joint", choice("own", "replicas"), "{0}", "rows and masks"),
    (joint_loss, "_added", op("*", "_own_rows"), "rows", "added"),
    (joint_loss, "_terms", statement("carry_mask"), "pass", "ignored labels"),
    (joint_loss, "_terms", call("flatten"), "()", "masks"),
    (joint_loss, "_finite_in_all", call("all_reduce"), "{1}", "infinite gradients"),
    (distributed, "_fit", call("take"), "None", "moving means"),
    (ReplicaMeans, "take", op("!="), "{0} != {0}", "moving means"),
    (ReplicaMeans, "_average", call("assign"), "None", "moving means"),
]
MUTANTS = [*IN_ONE, *IN_REPLICAS]


@pytest.mark.parametrize(
    ("owner", "name", "place", "change", "checks"), IN_ONE, ids=[label(*row[:4]) for row in IN_ONE]
)
def test_killed(owner, name, place, change, checks, monkeypatch):
    mutate(monkeypatch, owner, name, place, change)
    for check in checks:
        caught(check)


def of_replicas(replicas, strategy):
    """Print what differs between replicas and one process: each case, and each again with a fault that it must show."""
    for case in replicas.CASES:
        print("no fault", case, max(replicas.differences(case, strategy)), sep="\t")
    for owner, name, place, change, case in IN_REPLICAS:
        with pytest.MonkeyPatch.context() as patch:
            mutate(patch, owner, name, place, change)
            print(label(owner, name, place, change), case, max(replicas.differences(case, strategy)), sep="\t")


def test_two_replicas_learn_what_one_learns_but_with_a_fault():
    code = (
        "import replicas as r; two = r.two_devices(); import test_mutations_of_distribution as t; t.of_replicas(r, two)"
    )
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "tests" / "training"), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(found) > 20
    assert not [row for row in found if (float(row[2]) < 1e-5) != (row[0] == "no fault")]
