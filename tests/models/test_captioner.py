"""The captioner: what it computes, how it is trained, saved and exported, and what it refuses."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from shares import shares_of_zeros

import keras_seq
from keras_seq.models import ImageCaptioner, Vocabulary, small_encoder
from keras_seq.models.vocabulary import END, PAD, START

SENTENCES = ["a red square", "a blue circle left of a red square", "a green cross"]
SHAPE = (12, 12, 3)


def captioner(features_as="initial_state", cell=None, **arguments):
    keras.utils.set_random_seed(1)
    cell = keras_seq.PeepholeLSTMCell(7) if cell is None else cell
    model = ImageCaptioner(
        Vocabulary.of(SENTENCES), SHAPE, cell, features_as=features_as, embedding_size=6, max_length=9, **arguments
    )
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(scale=0.4, size=weight.shape))
    return model


def pictures(count=3):
    return np.random.default_rng(2).integers(0, 256, (count, *SHAPE)).astype("uint8")


@pytest.mark.parametrize("features_as", ["initial_state", "each_step", "attention"])
def test_generate_agrees_with_teacher_forcing(features_as):
    """Each generated token is the likeliest one after those before it, read off the model as it is trained."""
    model, images = captioner(features_as), pictures()
    tokens = model.generate_tokens(tf.constant(images)).numpy()
    inputs = np.concatenate([np.full((3, 1), START), tokens[:, :-1]], axis=1).astype("int32")
    logits = model((images, inputs)).numpy()
    logits[:, :, [PAD, START]] = -np.inf  # what no sentence is made of
    real = inputs != PAD
    real &= np.cumsum(inputs == END, axis=1) == 0
    assert real.sum() > 6
    assert (logits.argmax(-1)[real] == tokens[real]).all()


@pytest.mark.parametrize("features_as", ["initial_state", "each_step"])
def test_the_picture_matters_at_every_place_it_should(features_as):
    model, images = captioner(features_as), pictures()
    inputs = np.array(model.vocabulary.encode(SENTENCES))[:, :-1]
    kernel = model.bridges[0].kernel if features_as == "initial_state" else model.memory.cell.context_kernel
    before = model((images, inputs)).numpy()
    kernel.assign(kernel * 0)
    if features_as == "initial_state":
        model.bridges[1].kernel.assign(model.bridges[1].kernel * 0)
    blind = model((images, inputs)).numpy()
    assert np.abs(before - blind)[:, 0].max() > 1e-3
    assert np.abs(model((pictures()[::-1], inputs)).numpy() - blind).max() == 0


def test_the_extra_term_is_that_of_the_textbook():
    """P(w_1) by hand: features v, GRU-free: h_1 = tanh(E[START] W + b + v W_v) from a zero state."""
    model, images = captioner("each_step", keras_seq.SimpleRNNCell(7)), pictures()
    v = model.encoder(images.astype("float32")).numpy()
    cell = model.cell
    embedded = model.embedding.embeddings.numpy()[START]
    h = np.tanh(embedded @ cell.kernel.numpy() + cell.bias.numpy() + v @ model.memory.cell.context_kernel.numpy())
    expected = h @ model.readout.kernel.numpy() + model.readout.bias.numpy()
    logits = model((images, np.full((3, 2), START, "int32"))).numpy()
    np.testing.assert_allclose(logits[:, 0], expected, atol=1e-4)


@pytest.mark.deep
@pytest.mark.parametrize(("features_as", "jit"), [("each_step", False), ("attention", True)], ids=str)
def test_learns_three_pictures_by_heart(features_as, jit):
    keras.utils.set_random_seed(3)
    model, images = (
        ImageCaptioner(Vocabulary.of(SENTENCES), SHAPE, keras_seq.GRUCell(24), features_as=features_as),
        pictures(),
    )
    elements = tf.data.Dataset.from_tensor_slices({"image": images, "captions": [[s] for s in SENTENCES]})
    shapes = ((SHAPE, (9,)), (9,))
    data = elements.map(model.example).padded_batch(3, padded_shapes=shapes).repeat(80)
    model.compile(keras.optimizers.Adam(0.005), jit_compile=jit)
    assert np.isfinite(model.fit(data, verbose=0).history["loss"]).all()
    assert model.jit_compile is jit  # Keras turns XLA off where a layer does not support it
    assert model.generate(images) == SENTENCES
    assert model.generate(images[:1], prompts=["a blue"])[0].startswith("a blue ")


def test_padding_is_no_part_of_the_loss_nor_of_the_memory():
    model, images = captioner(), pictures()
    model.compile("sgd")
    tokens = np.array(model.vocabulary.encode(SENTENCES))
    wide = np.pad(tokens, ((0, 0), (0, 4)))
    first = model.test_on_batch((images, tokens[:, :-1]), tokens[:, 1:])
    second = model.test_on_batch((images, wide[:, :-1]), wide[:, 1:])
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_saved_loaded_and_exported(tmp_path):
    model, images = captioner("each_step"), pictures(5)
    sentences = model.generate(images)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert again.generate(images) == sentences
    model.export(tmp_path / "served", verbose=False)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "model = tf.saved_model.load('served')\n"
        "images = np.load('images.npy')\n"
        "for n in (2, 5):\n"
        "    print(*[s.decode() for s in model.sentences(tf.constant(images[:n])).numpy()], sep=';')\n"
        "    print(model.serve(tf.constant(images[:n])).numpy().tolist())\n"
        "signature = model.signatures['serving_default']\n"
        "print(signature.structured_input_signature[1]['images'].shape)\n"
        "assert 'keras_seq' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    tokens = model.generate_tokens(tf.constant(images)).numpy().tolist()
    lines = done.stdout.split("\n")
    assert lines[:4] == [";".join(sentences[:2]), str(tokens[:2]), ";".join(sentences), str(tokens)]
    assert lines[4] == "(None, 12, 12, 3)"


def test_any_encoder(tmp_path):
    inputs = keras.Input(SHAPE)
    encoder = keras.Model(inputs, keras.layers.Conv2D(5, 3)(inputs))  # a feature map: averaged over places
    model = captioner(encoder=encoder)
    images = pictures()
    np.testing.assert_allclose(
        model.features(images), encoder(images.astype("float32")).numpy().mean(axis=(1, 2)), rtol=1e-5
    )
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").generate(images) == model.generate(images)


def test_words_and_outputs_are_dropped_in_training_alone():
    model = captioner("each_step", dropout=0.4)
    tokens = np.tile(np.array(model.vocabulary.encode(SENTENCES[1:2])), (40, 1))
    for name, (outside, within) in shares_of_zeros(model, ["memory", "readout"], (pictures(40), tokens)).items():
        assert outside == 0, name
        assert abs(within - 0.4) < 0.06, name


def test_an_example_is_a_picture_and_one_of_its_sentences():
    model, element = captioner(), {"image": pictures()[0], "captions": tf.constant(SENTENCES)}
    said = set()
    for _ in range(30):
        (image, inputs), targets = model.example(element)
        np.testing.assert_array_equal(image, pictures()[0])
        assert (inputs[0], targets[-1]) == (START, END)
        np.testing.assert_array_equal(inputs[1:], targets[:-1])
        said.add(model.vocabulary.decode(targets[None]).numpy()[0].decode())
    assert said == set(SENTENCES)


def test_a_small_encoder_is_small_on_both_sides():
    """It halves a picture until its longer side is short enough."""
    assert small_encoder((12, 96, 3), features=None).output_shape == (None, 1, 6, 64)
    assert small_encoder((20, 5, 1), features=None, smallest=3).output_shape == (None, 3, 1, 64)
    assert small_encoder((8, 8, 1), features=7).output_shape == (None, 7)


@pytest.mark.parametrize("features", [None, 7])
def test_channels_stand_last_whatever_keras_is_set_to(features):
    set_before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        shape = small_encoder((12, 96, 3), features=features).output_shape
    finally:
        keras.config.set_image_data_format(set_before)
    assert shape == small_encoder((12, 96, 3), features=features).output_shape
    assert {x.data_format for x in small_encoder((8, 8, 1)).layers if hasattr(x, "data_format")} == {"channels_last"}


def test_every_argument_survives_the_configuration():
    given = {
        "features_as": "attention",
        "embedding_size": 6,
        "dropout": 0.25,
        "max_length": 7,
        "attention_penalty": 0.5,
    }
    first = ImageCaptioner(Vocabulary.of(SENTENCES), SHAPE, keras_seq.GRUCell(5), name="own", **given)
    config = json.loads(json.dumps(first.get_config()))
    again = ImageCaptioner.from_config(config)
    assert {name: getattr(again, name) for name in given} == given
    assert (again.name, again.image_shape, again.cell.units) == ("own", SHAPE, 5)
    assert again.vocabulary.tokens == first.vocabulary.tokens
    assert [w.shape for w in again.weights] == [w.shape for w in first.weights]


def test_where_it_looks():
    """The places, rows of the map first; a place that a picture has changed in is what is read of it."""
    model, images = captioner("attention"), pictures()
    assert model.map_shape == (6, 6)
    weights = model.alignment(images, SENTENCES)
    assert weights.shape == (3, 9, 6, 6)
    np.testing.assert_allclose(weights.sum((2, 3)), 1, rtol=1e-5)
    features = model.encoder(images.astype("float32")).numpy()
    _, (memory,) = model.start(features)
    np.testing.assert_allclose(memory[:, 6 * 2 + 3, :-2], features[:, 2, 3])
    np.testing.assert_allclose(memory[0, 6 * 2 + 3, -2:], [-0.2, 0.2], atol=1e-6)  # down, across
    with pytest.raises(ValueError, match="sentences: expected 3, one for each picture, got 1"):
        model.alignment(images, SENTENCES[:1])
    with pytest.raises(ValueError, match="features_as: expected 'attention'"):
        captioner().alignment(images, SENTENCES)


def test_penalty_of_places_left_out():
    """Xu et al. (2015), from the alignments that the model shows; the last word of a row has no step after it."""
    model, images = captioner("attention", attention_penalty=0.3), pictures()
    tokens = np.array(model.vocabulary.encode(SENTENCES))[:, :-1]
    model((images, tokens))
    seen = np.zeros((3, 6, 6))
    weights = model.alignment(images, SENTENCES)
    for row in range(3):
        seen[row] = weights[row, tokens[row] != PAD].sum(0)
    np.testing.assert_allclose(model.losses, [0.3 * np.mean(np.sum((1 - seen) ** 2, axis=(1, 2)))], rtol=1e-4)
    again = ImageCaptioner.from_config(model.get_config())
    assert again.attention_penalty == 0.3
    assert not captioner("attention").losses


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"features_as": "everywhere"}, ValueError, "features_as"),
        ({"attention_penalty": 1.0}, ValueError, "attention_penalty"),
        ({"attention_penalty": -1.0, "features_as": "attention"}, ValueError, "attention_penalty"),
        ({"attention_penalty": "1", "features_as": "attention"}, TypeError, "attention_penalty"),
        (
            {"encoder": keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()]), "features_as": "attention"},
            ValueError,
            "encoder",
        ),
        ({"cell": keras.layers.LSTMCell(3)}, TypeError, "cell"),
        ({"dropout": 1.0}, ValueError, "dropout"),
        ({"max_length": 0}, ValueError, "max_length"),
        ({"embedding_size": 2.5}, TypeError, "embedding_size"),
        ({"image_shape": (12, 12)}, ValueError, "image_shape"),
        ({"vocabulary": ["a"]}, TypeError, "vocabulary"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, name):
    arguments = {"vocabulary": Vocabulary(["a"]), "image_shape": SHAPE, **arguments}
    with pytest.raises(error, match=name):
        ImageCaptioner(**arguments)


def test_wrong_encoders_pictures_and_prompts_are_named():
    model = captioner()
    with pytest.raises(ValueError, match=r"encoder.*\(b, n\)"):
        captioner(encoder=keras.Sequential([keras.Input(SHAPE), keras.layers.Reshape((12, 36))]))
    for shape in ((2, 12, 12, 1), (2, 16, 12, 3), (12, 12, 3)):
        with pytest.raises(ValueError, match="images"):
            model.generate(np.zeros(shape, "uint8"))
    with pytest.raises(ValueError, match="images"):
        model((np.zeros((2, 8, 8, 3)), np.ones((2, 4), "int32")))
    with pytest.raises(ValueError, match="prompts"):
        model.generate(pictures(), prompts=["a"])
