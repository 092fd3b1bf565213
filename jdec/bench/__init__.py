"""What a machine can do, and what DEC makes of it: the measurements of ``jdec bench``."""

from jdec.bench.fits import Task, measure_fits
from jdec.bench.flags import set_xla_flags
from jdec.bench.member_steps import measure_members
from jdec.bench.record import Options, describe_machine, measure_machine
from jdec.bench.table import figures_of, format_record
from jdec.bench.timing import Timing, measure_bandwidth, measure_peak, time_jitted

__all__ = [
    "Options",
    "Task",
    "Timing",
    "describe_machine",
    "figures_of",
    "format_record",
    "measure_bandwidth",
    "measure_fits",
    "measure_machine",
    "measure_members",
    "measure_peak",
    "set_xla_flags",
    "time_jitted",
]
