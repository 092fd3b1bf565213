"""Data sets: rows and what is known about them; imbalanced subsets."""

import dataclasses
from typing import Any

import numpy as np

from jdec._checks import check_rate, check_same_length, check_seed, shown
from jdec._rows import as_labels


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Rows and, where known, their classes.

    Attributes:
        x: Rows in their natural units, [N D]: pixels 0 … 255 for mnist and fashion_mnist,
            0 … 16 for digits, coordinates 0 … 100 for pendigits, features of images for stl10 and
            cifar10, rows of L2 norm 1 for reuters and reuters10k, all of them float32; a file's own
            values in their own dtype, which is float64 for text. Sparse, a SciPy ``csr_array``, for
            reuters and for sparse files.
        y: Classes 0 … C-1, int64 [N], or None.
        name: The name asked for, or the file's name without its suffix.
        image_shape: Shape of a row as an image, (H, W) or (H, W, C), or None.
        n_train: Number of leading rows that are the training split, or None.
        class_names: Names of the classes 0 … C-1, or None.
        note: Caveat for any result on these rows.
        variant: Which of several sources or recipes of that name the rows come from, such as
            ``paper`` or ``sample``; empty if there is only one.
        unlabeled: Further rows without classes, for pretraining alone, float32 [M D], or None.
        feature_names: Names of the columns of ``x``, or None where they have none.
        label_name: Column or array of a file that the classes came from, or None.
        ids: Identifiers of the rows [N], text or whole numbers, or None.

    Examples:
        >>> Dataset(x=np.zeros((3, 2), np.float32), y=None, name="zeros").x.shape
        (3, 2)
    """

    x: Any  # np.ndarray or scipy.sparse.csr_array
    y: np.ndarray | None
    name: str
    image_shape: tuple[int, ...] | None = None
    n_train: int | None = None
    class_names: tuple[str, ...] | None = None
    note: str = ""
    variant: str = ""
    unlabeled: np.ndarray | None = None
    feature_names: tuple[str, ...] | None = None
    label_name: str | None = None
    ids: np.ndarray | None = None


def imbalanced_subset(dataset: Dataset, min_retention_rate: float, *, seed: int) -> Dataset:
    """Drop rows at random so that the classes differ in size, the first one the smallest.

    Each row is kept independently, with a probability that rises linearly from
    ``min_retention_rate`` for class 0 to 1 for the last class.

    Args:
        dataset: Rows with at least two classes.
        min_retention_rate: Probability of keeping a row of class 0, in (0, 1].
        seed: Seed of the NumPy generator that draws the rows, 0 … 2**32 - 1.

    Returns:
        The rows kept, in their order. ``n_train`` counts those kept of the training split, the
        note says how they were drawn, and everything else is as in ``dataset``.

    Raises:
        ValueError: If an argument is out of range, or there are fewer than two classes.

    Examples:
        >>> x, y = np.zeros((3000, 2), np.float32), np.arange(3000) % 3
        >>> np.bincount(imbalanced_subset(Dataset(x, y, "zeros"), 0.1, seed=0).y)
        array([ 119,  551, 1000])

    Source: Xie et al. 2016, section 5.4 and Table 4.
    """
    if not isinstance(dataset, Dataset):
        raise ValueError(f"dataset: expected a jdec.datasets.Dataset, got {shown(dataset)}")
    check_rate("min_retention_rate", min_retention_rate)
    rate = float(min_retention_rate)
    check_seed("seed", seed)
    if dataset.y is None:
        raise ValueError(f"{dataset.name}: expected classes to draw by, got a data set without")
    y = as_labels("y", dataset.y)
    check_same_length("y", y, "x", dataset.x)
    if y.dtype.kind not in "iu" or y.min(initial=0) < 0:
        raise ValueError("y: expected classes 0 … C-1, got others; number them first")
    n_classes = int(y.max(initial=-1)) + 1
    if n_classes < 2:
        raise ValueError(f"{dataset.name}: expected at least 2 classes, got {n_classes}")
    kept = np.random.default_rng(seed).random(len(y)) < np.linspace(rate, 1, n_classes)[y]
    drawn = f"imbalanced: class 0 kept with probability {rate:g}, the last with 1 (seed {seed})"
    return dataclasses.replace(
        dataset,
        x=dataset.x[kept],
        y=y[kept],
        n_train=None if dataset.n_train is None else int(kept[: dataset.n_train].sum()),
        ids=None if dataset.ids is None else dataset.ids[kept],
        note="; ".join(filter(None, [dataset.note, drawn])),
    )
