"""Files of Parquet and Arrow, some rows at a time: the only module that imports pyarrow."""

import contextlib
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jdec._archives import unpacked_limit
from jdec._files import reading

#: Suffixes of the files that are read: of Parquet, and of Arrow, which feather files are of.
SUFFIXES = (".parquet", ".arrow", ".feather")

_FEATHER_1 = b"FEA1"
_ARROW_FILE = b"ARROW1"  # other files of Arrow are streams, which are read in order


def open_table(path: Path) -> "ParquetFile | ArrowFile":
    """Open a file with one of :data:`SUFFIXES`."""
    return ParquetFile(path) if path.suffix.lower() == SUFFIXES[0] else ArrowFile(path)


class ParquetFile:
    """A file of Parquet; columns of text are read as codes where that is said."""

    expected = "an intact parquet file"

    def __init__(self, path: Path) -> None:
        self.path, (pyarrow, self._parquet) = path, _pyarrow(path)
        self.types = pyarrow.types
        with reading(path, self.expected), self._parquet.ParquetFile(path) as file:
            self._metadata, self.schema = file.metadata, file.schema_arrow
            self.n_rows = self._metadata.num_rows
            # Of row groups only: damaged metadata of a column can crash the process.
            groups = [self._metadata.row_group(i) for i in range(self._metadata.num_row_groups)]
            self.largest = max((group.total_byte_size for group in groups), default=0)

    def batches(self, size: int, columns: Sequence[str], texts: Sequence[str]) -> Iterator[Any]:
        """Yield some columns, at most ``size`` rows at a time."""
        with (
            reading(self.path, self.expected),
            self._parquet.ParquetFile(
                self.path, metadata=self._metadata, read_dictionary=list(texts)
            ) as file,
        ):
            yield from file.iter_batches(size, columns=list(columns))


class ArrowFile:
    """A file or stream of Arrow, memory-mapped."""

    expected = "an intact file of Arrow"
    largest = 0  # is not known before it is read

    def __init__(self, path: Path) -> None:
        self.path, self._pyarrow = path, _pyarrow(path)[0]
        self.types = self._pyarrow.types
        self._ipc = importlib.import_module("pyarrow.ipc")
        with reading(path, self.expected):
            with path.open("rb") as file:
                start = file.read(len(_ARROW_FILE))
            if start.startswith(_FEATHER_1):
                raise ValueError("feather of version 1; write it as version 2")
            self._is_stream = start != _ARROW_FILE
            with self._open([]) as (reader, _):
                self.schema = reader.schema
            self.n_rows = sum(batch.num_rows for batch in self._all([0]))

    @contextlib.contextmanager
    def _open(self, columns: Sequence[int]) -> Iterator[tuple[Any, Any]]:
        """Open it to read some columns, or all of them if that is empty."""
        options = self._ipc.IpcReadOptions(included_fields=list(columns))
        read = self._ipc.open_stream if self._is_stream else self._ipc.open_file
        with self._pyarrow.memory_map(str(self.path)) as file, read(file, options=options) as table:
            in_order = range(0 if self._is_stream else table.num_record_batches)
            yield table, table if self._is_stream else map(table.get_batch, in_order)

    def _all(self, columns: Sequence[int]) -> Iterator[Any]:
        limit = unpacked_limit(self.path.stat().st_size)
        with self._open(columns) as (_, batches):
            for batch in batches:
                if batch.nbytes > limit:
                    raise ValueError(f"a batch of {batch.nbytes} bytes")
                batch.validate(full=True)  # what is damaged could crash the process
                yield batch

    def batches(self, size: int, columns: Sequence[str], texts: Sequence[str]) -> Iterator[Any]:
        """Yield some columns, at most ``size`` rows at a time."""
        del texts  # Arrow holds codes where they were written
        places = [place for place, name in enumerate(self.schema.names) if name in columns]
        with reading(self.path, self.expected):
            for batch in self._all(places):
                for start in range(0, batch.num_rows, size):
                    yield batch.slice(start, size)


def write_parquet(path: Path, file: Any, parts: Iterable[Mapping[str, Any]]) -> None:
    """Write columns, some rows at a time, to an open file of the name ``path``."""
    pyarrow, parquet = _pyarrow(path)
    writer = None
    for part in parts:
        table = pyarrow.table(dict(part))
        writer = writer or parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(
            f'{path}: {path.suffix} needs pyarrow: pip install "jdec[parquet]"'
        ) from error
