"""The example on rows of digits: its readers, its models, and a small run on the real pictures."""

import gzip
import pathlib
import sys

import keras
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
import mnist_rows


def write_idx(path, array):
    """An idx file of bytes: two zeros, the kind 8, the number of axes, their lengths, the values."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.astype("uint8").tobytes()))


def drawn(folder, count=60):
    """Files like those of MNIST, in which a digit is a bright row at three times its number."""
    folder.mkdir()
    for part, n in (("train", count), ("t10k", 20)):
        digits = np.arange(n) % 10
        pictures = np.zeros((n, 28, 28))
        pictures[np.arange(n), 3 * digits] = 200
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", pictures)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", digits)


def test_idx_files(tmp_path):
    drawn(tmp_path / "mnist")
    (pictures, digits), (others, _) = mnist_rows.mnist(tmp_path / "mnist")
    assert pictures.shape == (60, 28, 28)
    assert others.shape == (20, 28, 28)
    assert pictures[7, 21].min() == 200
    assert pictures[7].sum() == 200 * 28
    np.testing.assert_array_equal(digits[:12], [*range(10), 0, 1])
    assert mnist_rows.rows(pictures).max() == pytest.approx(200 / 255)


def test_without_the_files_tensorflow_datasets_is_asked(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    with tfds.testing.mock_data(num_examples=30):
        train, test = mnist_rows.mnist(tmp_path / "none")
    for pictures, digits in (train, test):
        assert pictures.shape == (30, 28, 28)
        assert pictures.dtype == np.uint8
        assert digits.shape == (30,)
        assert set(digits) <= set(range(10))


@pytest.mark.parametrize("name", mnist_rows.MODELS)
@pytest.mark.filterwarnings("ignore:.*shorter than the receptive field")
def test_every_row_reaches_the_answer(name):
    layers, _ = mnist_rows.MODELS[name]
    model = keras.Sequential([keras.Input((28, 28)), *layers()])
    picture = np.random.default_rng(0).uniform(size=(1, 28, 28)).astype("float32")
    changed = np.repeat(picture, 28, axis=0)
    changed[np.arange(28), np.arange(28)] = 0
    answer, others = model(picture), model(changed)
    assert answer.shape[0] == 1
    assert np.abs(np.array(others) - np.array(answer)).max(1).min() > 1e-7


def test_a_run_on_drawn_rows(tmp_path, capsys):
    drawn(tmp_path / "mnist", 400)
    arguments = ["--models", "tdnn", "--epochs", "12", "--batch", "20", "--data", str(tmp_path), "--no-jit"]
    results = mnist_rows.main([*arguments, "--output", str(tmp_path / "out")])
    assert list(results) == ["tdnn"]
    parameters, epochs, accuracy, seconds = results["tdnn"]
    assert (parameters, epochs) == (mnist_parameters(), 12)
    assert accuracy > 0.8, "a bright row says which digit it is"
    assert seconds > 0
    assert "200 pictures to train, 200 pictures to validation, 20 pictures to test" in capsys.readouterr().out
    assert (tmp_path / "out" / "mnist_rows.png").stat().st_size > 5000


def mnist_parameters():
    """Of the time-delay network: contexts of five and three rows, 80 wide, and the scores."""
    return (5 * 28 * 80 + 80) + 3 * (3 * 80 * 80 + 80) + 81 * 10


@pytest.mark.filterwarnings("ignore:.*shorter than the receptive field")
def test_a_small_run_on_mnist(tmp_path, capsys, data_folder):
    data = data_folder("mnist").parent
    (pictures, _), test = mnist_rows.mnist(data / "mnist")
    assert (len(pictures), len(test[0])) == (60000, 10000)
    arguments = [
        "--models",
        "bidirectional",
        "tcn",
        "--limit",
        "640",
        "--epochs",
        "2",
        "--batch",
        "16",
        "--no-jit",
        "--data",
        str(data),
    ]
    results = mnist_rows.main([*arguments, "--output", str(tmp_path)])
    out = capsys.readouterr().out
    assert "640 pictures to train, 640 pictures to validation, 640 pictures to test" in out
    for name in ("bidirectional", "tcn"):
        assert f"\n| {name:13} | " in out
        assert results[name][2] > 0.2, "better than guessing"
    assert (tmp_path / "mnist_rows.png").stat().st_size > 5000
