"""Data sets: generated tasks as TFDS builders, and readers of a user's own files.

Importing this package registers the builders, so that `tfds.load` finds them by name. It needs tensorflow-datasets:
`pip install keras_seq[datasets]`.
"""

from keras_seq.datasets.dates import HumanDates
from keras_seq.datasets.folder import caption_folder
from keras_seq.datasets.scenes import DrawnScenes

__all__ = ["DrawnScenes", "HumanDates", "caption_folder"]
