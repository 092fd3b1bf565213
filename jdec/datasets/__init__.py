"""Data sets by name or from a file. Labels are only passed on; nothing here trains with them."""

from jdec.datasets.blocks import stack_blocks as stack_blocks
from jdec.datasets.dataset import Dataset as Dataset
from jdec.datasets.dataset import imbalanced_subset as imbalanced_subset
from jdec.datasets.download import download_dataset as download_dataset
from jdec.datasets.load import DatasetRow as DatasetRow
from jdec.datasets.load import dataset_table as dataset_table
from jdec.datasets.load import load_dataset as load_dataset

__all__ = [
    "Dataset",
    "DatasetRow",
    "dataset_table",
    "download_dataset",
    "imbalanced_subset",
    "load_dataset",
    "stack_blocks",
]
