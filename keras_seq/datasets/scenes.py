"""Drawn scenes: small pictures of one or two shapes, each with five sentences that describe it."""

import dataclasses
import itertools
from typing import TYPE_CHECKING

import numpy as np

from keras_seq.extras import needed

if TYPE_CHECKING:
    import tensorflow_datasets as tfds
else:
    tfds = needed("tensorflow_datasets", "datasets")

SIDE = 48  # pixels
SIZES = {"small": 5.0, "large": 9.5}  # half the width in pixels, before jitter
COLOURS = {
    "red": (215, 30, 35),
    "green": (30, 150, 55),
    "blue": (40, 80, 220),
    "yellow": (250, 220, 20),
    "purple": (125, 40, 165),
    "orange": (255, 130, 20),
}
SHAPES = {  # whether a point lies inside, where x runs right and y down, both in half widths from the centre
    "circle": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= 0.9,
    "triangle": lambda x, y: (y <= 0.85) & (1.85 * np.abs(x) <= y + 1),
    "cross": lambda x, y: (np.maximum(np.abs(x), np.abs(y)) <= 1) & (np.minimum(np.abs(x), np.abs(y)) <= 0.32),
}
KINDS = tuple(itertools.product(SIZES, COLOURS, SHAPES))

# A diagonal walk through colours and shapes: no (colour, shape) comes twice: its other size is in `train`.
HELD_OUT_KINDS = tuple(
    (tuple(SIZES)[k // 4], tuple(COLOURS)[k % len(COLOURS)], tuple(SHAPES)[k % len(SHAPES)]) for k in range(8)
)

SPLITS = {"train": 6000, "validation": 500, "test": 500, "test_kinds": 500}
HELD_OUT = {"test": "pairs", "test_kinds": "kinds"}  # what only these splits hold
SEED = 48
ALONE = 1 / 6  # how often a scene holds one object only
JITTER = 0.07  # of the half width
GAP = 2.0  # pixels between two objects, and between an object and the edge
CLEAR = 2.5  # how many times the offset along the relation's axis exceeds the other offset
SAMPLES = 4  # per pixel and axis, for soft edges


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """One object of a scene: its kind, its centre (`x` to the right, `y` down) and half its width, in pixels."""

    size: str
    colour: str
    shape: str
    x: float
    y: float
    radius: float

    def __post_init__(self):
        for name, known in (("size", SIZES), ("colour", COLOURS), ("shape", SHAPES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not self.radius > 0:
            raise ValueError(f"radius: expected a positive number of pixels, got {self.radius!r}")

    def __str__(self):
        return f"{self.size} {self.colour} {self.shape}"


def draw_scene(objects, rng):
    """Draws objects, the first one lowest, on a light background with a tint, a slope and grain of its own.

    Args:
        objects: a list of `SceneObject`.
        rng: a `numpy.random.Generator`; decides the background and how bright each object is.

    Returns:
        A picture, uint8 of shape (48, 48, 3), in RGB.

    Raises:
        TypeError: where `objects` is no list of `SceneObject`, or `rng` is not a generator.

    Example:

    ```python
    import numpy as np
    from keras_seq.datasets.scenes import SceneObject, draw_scene
    red = SceneObject("small", "red", "square", x=12.0, y=24.0, radius=5.0)
    print(draw_scene([red], np.random.default_rng(0)).shape)  # (48, 48, 3)
    ```
    """
    _check_rng(rng)
    across = np.linspace(-1, 1, SIDE)
    slope_x, slope_y = rng.uniform(-8, 8, 2)
    light = rng.uniform(215, 235) + slope_x * across + slope_y * across[:, None]
    picture = light[..., None] + rng.uniform(-9, 9, 3)

    fine = (np.arange(SIDE * SAMPLES) + 0.5) / SAMPLES
    for item in _checked(objects):
        inside = SHAPES[item.shape]((fine - item.x) / item.radius, (fine[:, None] - item.y) / item.radius)
        cover = inside.reshape(SIDE, SAMPLES, SIDE, SAMPLES).mean(axis=(1, 3))[..., None]
        picture += cover * (np.array(COLOURS[item.colour]) * rng.uniform(0.88, 1.06) - picture)

    picture += rng.normal(0, 4, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def describe(objects):
    """Five sentences that describe a scene, the canonical one first.

    The subject of the canonical sentence is the left object of two side by side and the upper of two that stand one
    over the other, so that it uses "left of" and "above" only; the others say the same in other words, or conversely.

    Args:
        objects: a list of one or two `SceneObject`s, in any order.

    Returns:
        A list of five sentences, lower case words divided by single spaces.

    Raises:
        TypeError: where `objects` is no list of `SceneObject`.
        ValueError: where there are not one or two objects, or the two stand neither clearly side by side nor clearly
            one over the other.

    Example:

    ```python
    from keras_seq.datasets.scenes import SceneObject, describe
    red = SceneObject("small", "red", "square", x=12.0, y=24.0, radius=5.0)
    blue = SceneObject("large", "blue", "circle", x=34.0, y=26.0, radius=9.5)
    print(describe([blue, red])[0])  # a small red square left of a large blue circle
    ```
    """
    objects = _checked(objects)
    if len(objects) == 1:
        (a,) = objects
        return [
            f"a {a}",
            f"one {a}",
            f"there is a {a}",
            f"a {a.shape} that is {a.size} and {a.colour}",
            f"the {a.shape} is {a.size} and {a.colour}",
        ]
    a, b, relation, converse = _relate(objects)
    toward, back = (f"to the {r}" if r.endswith(" of") else r for r in (relation, converse))
    return [
        f"a {a} {relation} a {b}",
        f"a {b} {converse} a {a}",
        f"there is a {a} {toward} a {b}",
        f"the {a} is {relation} the {b}",
        f"the {b} is {back} the {a}",
    ]


def is_held_out_pair(a, b):
    """Whether two kinds never stand together in `train`: one in five pairs, spread evenly over all kinds.

    Args:
        a, b: two of `KINDS`, in any order.

    Example:

    >>> is_held_out_pair(("small", "red", "circle"), ("small", "green", "square"))
    True
    """
    return (KINDS.index(a) + KINDS.index(b)) % 5 == 0


def sample_scene(rng, *, held_out=None):
    """Draws by lot the one or two objects of a scene, the subject of its canonical sentence first.

    Args:
            held_out: None for a scene as in `train`; "pairs" for two objects that never stand together there (see
            `is_held_out_pair`), each of a kind that does occur; "kinds" for a scene with a kind of `HELD_OUT_KINDS`.

    Returns:
        A list of one or two `SceneObject`s of different kinds, clear of each other and of the edges.

    Raises:
        TypeError: where `rng` is no generator.
        ValueError: where `held_out` is none of the three.

    Example:

    >>> [str(item) for item in sample_scene(np.random.default_rng(0), held_out="kinds")]
    ['large green triangle', 'large red triangle']
    """
    _check_rng(rng)
    if held_out not in (None, "pairs", "kinds"):
        raise ValueError(f"held_out: expected None, 'pairs' or 'kinds', got {held_out!r}")
    usual = [kind for kind in KINDS if kind not in HELD_OUT_KINDS]
    first = _choose(HELD_OUT_KINDS if held_out == "kinds" else usual, rng)
    kinds = [first]
    if held_out == "pairs" or rng.random() >= ALONE:
        others = [kind for kind in (KINDS if held_out == "kinds" else usual) if kind != first]
        if held_out != "kinds":
            others = [kind for kind in others if is_held_out_pair(first, kind) == (held_out == "pairs")]
        kinds.append(_choose(others, rng))
        rng.shuffle(kinds)
    radii = [SIZES[size] * rng.uniform(1 - JITTER, 1 + JITTER) for size, _, _ in kinds]
    centres = _place(radii, rng)
    return [
        SceneObject(*kind, *map(float, centre), radius)
        for kind, centre, radius in zip(kinds, centres, radii, strict=True)
    ]


class DrawnScenes(tfds.core.GeneratorBasedBuilder):
    """Pictures of one or two simple objects, five sentences each: captioning that a model of any size can try.

    Each object is of one of 48 kinds (2 sizes, 6 colours, 4 shapes). Two things never occur in `train` and `validation`:

    - one in five pairs of kinds: a scene of `test` is such a pair, two known objects never seen together;
    - 8 of the kinds, while each of their (size, colour), (size, shape) and (colour, shape) does occur: a scene of
      `test_kinds`, which is harder, has at least one of them.

    Nothing is downloaded, and the same pictures come every time.

    Each example is a dict of:

    - `image`: uint8 (48, 48, 3);
    - `captions`: 5 strings, see `describe`; the first is canonical, its subject and relation decided by the picture;
    - `objects`: a dict of sequences as long as the scene has objects, the canonical subject first: `size`, `colour`
      and `shape` are int64 class labels, `x` (to the right) and `y` (down) are the centre in pixels, float32.

    Splits: `train` 6000, `validation` 500, `test` 500, `test_kinds` 500.

    Example:

    ```python
    import keras_seq.datasets
    import tensorflow_datasets as tfds

    scenes = tfds.load("drawn_scenes", split="train")
    for scene in scenes.take(1):
        print(scene["image"].shape, scene["captions"][0].numpy().decode())
    ```
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS declares it so)
    url_infos = None  # nothing to download; TFDS 4.9.10 looks for checksums through a package that it does not install

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn pictures of one or two simple objects, each with five sentences that describe it.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
                    "captions": tfds.features.Sequence(tfds.features.Text(), length=5),
                    "objects": tfds.features.Sequence(
                        {
                            "size": tfds.features.ClassLabel(names=list(SIZES)),
                            "colour": tfds.features.ClassLabel(names=list(COLOURS)),
                            "shape": tfds.features.ClassLabel(names=list(SHAPES)),
                            "x": np.float32,
                            "y": np.float32,
                        }
                    ),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split):
        for index in range(SPLITS[split]):
            rng = np.random.default_rng([SEED, tuple(SPLITS).index(split), index])
            objects = sample_scene(rng, held_out=HELD_OUT.get(split))
            fields = ("size", "colour", "shape", "x", "y")
            yield (
                index,
                {
                    "image": draw_scene(objects, rng),
                    "captions": describe(objects),
                    "objects": [{field: getattr(item, field) for field in fields} for item in objects],
                },
            )


def _check_rng(rng):
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")


def _checked(objects):
    if not isinstance(objects, (list, tuple)):
        raise TypeError(f"objects: expected a list of SceneObject, got {type(objects).__name__}")
    for item in objects:
        if not isinstance(item, SceneObject):
            raise TypeError(f"objects: expected a list of SceneObject, got a {type(item).__name__} in it")
    return objects


def _relate(objects):
    """The subject, the other object, the relation from the first to the second, and its converse."""
    if len(objects) != 2:
        raise ValueError(f"objects: expected one or two, got {len(objects)}")
    a, b = objects
    dx, dy = abs(a.x - b.x), abs(a.y - b.y)
    if dx >= CLEAR * dy and dx > 0:
        return *sorted(objects, key=lambda item: item.x), "left of", "right of"
    if dy >= CLEAR * dx and dy > 0:
        return *sorted(objects, key=lambda item: item.y), "above", "below"
    raise ValueError(
        f"objects: expected one offset at least {CLEAR} times the other, got {dx:.1f} pixels across and {dy:.1f} down"
    )


def _place(radii, rng):
    """Centres (x, y) for one object anywhere, or for two where the first stands clearly left of or above the second."""
    radii = np.array(radii)
    low, high = radii + GAP, SIDE - radii - GAP  # of either coordinate
    if len(radii) == 1:
        return rng.uniform(low[0], high[0], (1, 2))
    near = rng.uniform(low[0], high[1] - radii.sum() - GAP)
    far = rng.uniform(near + radii.sum() + GAP, high[1])
    aside = (far - near) / CLEAR * rng.uniform(-1, 1)  # the offset along the other axis
    first = rng.uniform(max(low[0], low[1] - aside), min(high[0], high[1] - aside))
    centres = np.array([[near, first], [far, first + aside]])
    return centres if rng.random() < 0.5 else centres[:, ::-1]


def _choose(items, rng):
    return items[rng.integers(len(items))]
