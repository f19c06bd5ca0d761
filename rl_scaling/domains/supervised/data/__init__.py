"""Image data sets, whole and on the device."""

from rl_scaling.domains.supervised.data.augmentation import Augmentation, augment, draw_augmentation
from rl_scaling.domains.supervised.data.dataset import Dataset, Scale, Split
from rl_scaling.domains.supervised.data.load import load_dataset

__all__ = ["Augmentation", "Dataset", "Scale", "Split", "augment", "draw_augmentation", "load_dataset"]
