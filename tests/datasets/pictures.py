"""Made-up files of images, as mnist and fashion_mnist have them."""

import gzip
import struct

import numpy as np

IDX_FILES = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
]


def idx_bytes(array, *, type_code=8, shape=None, magic=b"\0\0"):
    shape = array.shape if shape is None else shape
    header = magic + bytes((type_code, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
    return header + array.astype(np.uint8).tobytes()


def image_arrays(n_train=5, n_test=3):
    rng = np.random.default_rng(0)
    arrays = []
    for n in (n_train, n_test):
        arrays.append(rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        arrays.append(rng.integers(0, 10, n, dtype=np.uint8))
    return arrays


def write_images(folder, arrays=None, *, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = image_arrays() if arrays is None else arrays
    for file, array in zip(IDX_FILES, arrays, strict=True):
        raw = idx_bytes(array)
        if zipped:
            (folder / file).write_bytes(gzip.compress(raw))
        else:
            (folder / file.removesuffix(".gz")).write_bytes(raw)
    return arrays


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def check_form(data, n_rows, n_features):
    assert data.x.shape == (n_rows, n_features)
    assert data.x.dtype == np.float32
    assert data.x.flags.c_contiguous
    if data.y is not None:
        assert data.y.shape == (n_rows,)
        assert data.y.dtype == np.int64
