"""Drawn scenes: what the builder writes, and the three functions that it is made of."""

import itertools
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from keras_seq.datasets import DrawnScenes, scenes
from keras_seq.datasets.scenes import SceneObject, describe, draw_scene, sample_scene

TRUE = {  # whether a stands in this relation to b, written apart from the code under test
    "left": lambda a, b: a["x"] < b["x"] and abs(a["x"] - b["x"]) > 2 * abs(a["y"] - b["y"]),
    "right": lambda a, b: a["x"] > b["x"] and abs(a["x"] - b["x"]) > 2 * abs(a["y"] - b["y"]),
    "above": lambda a, b: a["y"] < b["y"] and abs(a["y"] - b["y"]) > 2 * abs(a["x"] - b["x"]),
    "below": lambda a, b: a["y"] > b["y"] and abs(a["y"] - b["y"]) > 2 * abs(a["x"] - b["x"]),
}


def read(builder, split, image=True):
    """The examples of a split as plain Python: kinds are words, sentences strings."""
    names = {field: builder.info.features["objects"][field].int2str for field in ("size", "colour", "shape")}
    decoders = None if image else {"image": tfds.decode.SkipDecoding()}
    for example in tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders)):
        fields = example["objects"]
        objects = [
            {"kind": tuple(names[f](int(fields[f][k])) for f in names), "x": fields["x"][k], "y": fields["y"][k]}
            for k in range(len(fields["x"]))
        ]
        yield {
            "image": example["image"],
            "captions": [caption.decode() for caption in example["captions"]],
            "objects": objects,
        }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    builder = tfds.builder("drawn_scenes", data_dir=tmp_path_factory.mktemp("whole"))
    builder.download_and_prepare()
    return builder, {split: list(read(builder, split, image=False)) for split in scenes.SPLITS}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    def build(name):
        builder = DrawnScenes(data_dir=tmp_path_factory.mktemp(name))
        capped = tfds.download.DownloadConfig(max_examples_per_split=30)
        builder.download_and_prepare(download_config=capped)
        return builder

    return build("first"), build("second")


def kinds_of(examples):
    return {item["kind"] for example in examples for item in example["objects"]}


@pytest.mark.deep
def test_splits_are_cached_on_disk_and_found_by_name(whole):
    builder, examples = whole
    assert {split: len(own) for split, own in examples.items()} == {
        "train": 6000,
        "validation": 500,
        "test": 500,
        "test_kinds": 500,
    }
    again = tfds.load("drawn_scenes", split="test", data_dir=builder.data_dir_root, download=False)
    assert again.element_spec["image"].shape == (48, 48, 3)
    assert again.element_spec["image"].dtype == "uint8"
    assert again.element_spec["captions"].shape == (5,)
    assert set(again.element_spec["objects"]) == {"size", "colour", "shape", "x", "y"}


def test_held_out_kinds_are_only_in_their_split_and_in_every_scene_of_it(whole):
    _, examples = whole
    held_out = set(scenes.HELD_OUT_KINDS)
    assert len(held_out) == 8
    assert len(scenes.KINDS) == 48
    assert kinds_of(examples["train"]) == kinds_of(examples["test"]) == set(scenes.KINDS) - held_out
    assert not kinds_of(examples["validation"]) & held_out
    assert all(held_out & kinds_of([example]) for example in examples["test_kinds"])
    assert held_out < kinds_of(examples["test_kinds"])
    pairs = [example["objects"] for example in examples["test_kinds"] if len(example["objects"]) == 2]
    for place in (0, 1):  # subject or not, a held-out kind is as likely
        assert 0.4 < np.mean([objects[place]["kind"] in held_out for objects in pairs]) < 0.8


def test_pairs_of_the_test_split_never_stand_together_in_training(whole):
    def pairs_of(*splits):
        scenes_ = [example["objects"] for split in splits for example in whole[1][split]]
        return [frozenset(item["kind"] for item in objects) for objects in scenes_ if len(objects) == 2]

    known, new = set(pairs_of("train", "validation")), pairs_of("test")
    assert len(new) == 500  # all scenes of the split have two objects
    assert not known & set(new)
    assert all(scenes.is_held_out_pair(*pair) for pair in new)
    usual = [kind for kind in scenes.KINDS if kind not in scenes.HELD_OUT_KINDS]
    everything = {frozenset(pair) for pair in itertools.combinations(usual, 2)}
    share = np.mean([scenes.is_held_out_pair(*pair) for pair in everything])
    assert 0.15 < share < 0.25
    assert len(known) > 0.95 * (1 - share) * len(everything)  # the rest do occur: being held out says something


def test_held_out_kinds_are_spread_evenly():
    sizes, colours, shapes = zip(*scenes.HELD_OUT_KINDS, strict=True)
    assert {sizes.count(size) for size in scenes.SIZES} == {4}
    assert {colours.count(colour) for colour in scenes.COLOURS} == {1, 2}
    assert {shapes.count(shape) for shape in scenes.SHAPES} == {2}


def test_no_scene_comes_twice(whole):
    places = [
        tuple((item["x"], item["y"]) for item in example["objects"])
        for examples in whole[1].values()
        for example in examples
    ]
    assert len(set(places)) == len(places) == 7500


def test_every_pair_of_attributes_occurs_in_training(whole):
    kinds = kinds_of(whole[1]["train"])
    for first, second in itertools.combinations(range(3), 2):
        found = {(kind[first], kind[second]) for kind in kinds}
        assert found == {(kind[first], kind[second]) for kind in scenes.KINDS}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_captions_say_what_is_true(whole, split):
    relations = set()
    for example in whole[1][split]:
        objects, captions = example["objects"], example["captions"]
        assert len(set(captions)) == 5
        assert all(re.fullmatch("[a-z]+( [a-z]+)*", caption) for caption in captions)
        if len(objects) == 1:
            assert captions[0] == "a " + " ".join(objects[0]["kind"])
            assert all(set(objects[0]["kind"]) <= set(caption.split()) for caption in captions)
            continue
        by_kind = {" ".join(item["kind"]): item for item in objects}
        assert len(by_kind) == 2
        for caption in captions:
            a, b = sorted(by_kind, key=caption.index)
            (relation,) = set(caption.split()) & set(TRUE)
            assert TRUE[relation](by_kind[a], by_kind[b]), caption
            relations.add((captions.index(caption), relation))
        assert re.fullmatch(r"a \w+ \w+ \w+ (left of|above) a \w+ \w+ \w+", captions[0])
        assert captions[0].startswith("a " + " ".join(objects[0]["kind"]))
    assert {relation for k, relation in relations if k == 0} == {"left", "above"}
    assert {relation for _, relation in relations} == set(TRUE)


def test_scenes_are_varied(whole):
    train = whole[1]["train"]
    alone = np.mean([len(example["objects"]) == 1 for example in train])
    assert 0.14 < alone < 0.19
    aside = np.mean(["left" in example["captions"][0] for example in train if len(example["objects"]) == 2])
    assert 0.45 < aside < 0.55
    places = np.array([(item["x"], item["y"]) for example in train for item in example["objects"]])
    assert (places.min(axis=0) < 10).all()
    assert (places.max(axis=0) > 38).all()
    counts = {kind: 0 for kind in scenes.KINDS if kind not in scenes.HELD_OUT_KINDS}
    for example in train:
        for item in example["objects"]:
            counts[item["kind"]] += 1
    assert max(counts.values()) < 1.6 * min(counts.values())


def test_building_twice_gives_the_same_bytes(few):
    first, second = (
        {path.name: path.read_bytes() for path in builder.data_path.iterdir() if "tfrecord" in path.name}
        for builder in few
    )
    assert len(first) == 4
    assert first == second
    assert len(set(first.values())) == 4


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_centre_of_each_object_has_its_colour(few, split):
    seen = 0
    for example in read(few[0], split):
        for item in example["objects"]:
            pixel = example["image"][int(item["y"]), int(item["x"])].astype(float)
            hue = {name: np.array(rgb) / max(rgb) for name, rgb in scenes.COLOURS.items()}
            nearest = min(hue, key=lambda name: np.abs(pixel / pixel.max() - hue[name]).sum())
            assert nearest == item["kind"][1], example["captions"]
            seen += 1
    assert seen > 40


def test_the_background_is_light_and_differs_from_scene_to_scene(few):
    corners = np.array([example["image"][0, 0] for example in read(few[0], "train")])
    assert corners.min() > 180
    assert len(np.unique(corners, axis=0)) > 20


@pytest.mark.parametrize("held_out", [None, "pairs", "kinds"])
def test_objects_keep_clear_of_each_other_and_of_the_edge(held_out):
    radii = {"small": [], "large": []}
    for seed in range(400):
        objects = sample_scene(np.random.default_rng(seed), held_out=held_out)
        for item in objects:
            radii[item.size].append(item.radius)
            assert item.radius + 1 < min(item.x, item.y)
            assert max(item.x, item.y) < 48 - item.radius - 1
        if len(objects) == 2:
            a, b = objects
            assert max(abs(a.x - b.x), abs(a.y - b.y)) > a.radius + b.radius + 1
    assert max(radii["small"]) < 0.62 * min(radii["large"])


@pytest.mark.parametrize(
    ("shape", "inside", "outside"),
    [
        ("circle", [(0.6, 0.6), (0, 0.85), (-0.85, 0)], [(0.85, 0.85), (-0.85, 0.85), (0, 1.15)]),
        ("square", [(0.75, 0.75), (-0.75, 0.75), (0.75, -0.75)], [(0, 1.1), (1.1, 0)]),
        ("triangle", [(0.7, 0.7), (-0.7, 0.7), (0, -0.6)], [(0.7, -0.6), (-0.7, -0.6), (0, 1.1)]),
        ("cross", [(0, 0.8), (0.8, 0), (0, -0.8), (-0.8, 0)], [(0.6, 0.6), (-0.6, 0.6), (0.6, -0.6), (0, 1.2)]),
    ],
)
def test_shapes_have_their_outline(shape, inside, outside):
    picture = draw_scene([SceneObject("large", "purple", shape, 20.0, 26.0, 10.0)], np.random.default_rng(1))
    green = {(x, y): picture[int(26 + 10 * y), int(20 + 10 * x), 1] for x, y in inside + outside}
    assert all(green[point] < 90 for point in inside), green
    assert all(green[point] > 180 for point in outside), green


def test_the_same_generator_draws_the_same_picture():
    item = SceneObject("small", "green", "cross", 12.0, 30.0, 5.0)
    first, second, other = (draw_scene([item], np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    assert first.dtype == np.uint8


def test_five_sentences_whatever_the_order_given():
    red = SceneObject("small", "red", "square", x=12.0, y=24.0, radius=5.0)
    blue = SceneObject("large", "blue", "circle", x=34.0, y=26.0, radius=9.5)
    expected = [
        "a small red square left of a large blue circle",
        "a large blue circle right of a small red square",
        "there is a small red square to the left of a large blue circle",
        "the small red square is left of the large blue circle",
        "the large blue circle is to the right of the small red square",
    ]
    assert describe([red, blue]) == describe([blue, red]) == expected
    over = SceneObject("small", "red", "square", x=32.0, y=8.0, radius=5.0)
    assert describe([blue, over])[1] == "a large blue circle below a small red square"


RED = SceneObject("small", "red", "square", 12.0, 24.0, 5.0)
WRONG = [
    (lambda: describe([]), ValueError, "objects: expected one or two, got 0"),
    (lambda: describe([RED] * 3), ValueError, "objects: expected one or two, got 3"),
    (lambda: describe([RED, RED]), ValueError, "objects: .*got 0.0 pixels across and 0.0 down"),
    (lambda: describe([RED, SceneObject("large", "blue", "cross", 30.0, 40.0, 9.0)]), ValueError, "18.0 pixels across"),
    (lambda: describe(RED), TypeError, "objects: expected a list of SceneObject, got SceneObject"),
    (lambda: draw_scene(["red"], np.random.default_rng(0)), TypeError, "objects: .* got a str"),
    (lambda: draw_scene([RED], 0), TypeError, "rng: expected a numpy.random.Generator, got int"),
    (lambda: sample_scene(0), TypeError, "rng: expected"),
    (lambda: sample_scene(np.random.default_rng(0), held_out=True), ValueError, "held_out: expected None, 'pairs' or"),
    (
        lambda: SceneObject("small", "pink", "square", 1.0, 1.0, 5.0),
        ValueError,
        "colour: expected one of red, .*'pink'",
    ),
    (lambda: SceneObject("tiny", "red", "square", 1.0, 1.0, 5.0), ValueError, "size: .*'tiny'"),
    (lambda: SceneObject("small", "red", "star", 1.0, 1.0, 5.0), ValueError, "shape: .*'star'"),
    (lambda: SceneObject("small", "red", "square", 1.0, 1.0, 0.0), ValueError, "radius: expected a positive"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_inputs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
