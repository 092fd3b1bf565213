"""What a compiled program does on a device, counted in the text of its HLO.

Kernels, bytes, products and collectives of a computation; a loop counts as often as it runs, and
one that runs until something has converged as often as it may.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple

_SIZES = {"pred": 1, "s4": 1, "u4": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2}
_SIZES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")

#: Instructions that only name or place what is there already.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
_FREE |= {"add-dependency", "opt-barrier", "partition-id", "replica-id"}
_FREE_CALLS = ("ConcatBitcast", "AllocateBuffer", "Assume", "Sharding", "GatherScatterIndices")
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
#: Fewer entries than this are scalars to a kernel, whose launch is all they cost.
_FEW = 16
_MANY = 10_000  # of gathered entries


class Instruction(NamedTuple):
    """One line of HLO."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str  # of a constant its value

    @property
    def arrays(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Type, sizes and layout of each array that it returns."""
        return [
            (kind, tuple(int(size) for size in sizes.split(",") if size), layout or "")
            for kind, sizes, layout in _ARRAY.findall(self.shape)
        ]

    @property
    def entries(self) -> int:
        """Number of entries of its largest array."""
        return max((math.prod(sizes) for _, sizes, _ in self.arrays), default=0)

    @property
    def n_bytes(self) -> int:
        """Bytes of what it returns, in the memory of the device and not in one on the chip."""
        return sum(self.bytes_by_array)

    @property
    def bytes_by_array(self) -> list[int]:
        """The same, of each array."""
        return [
            _SIZES.get(kind, 0) * math.prod(sizes)
            for kind, sizes, layout in self.arrays
            if "S(" not in layout
        ]

    def sizes(self, attribute: str) -> tuple[int, ...]:
        """Return the numbers of an attribute such as ``slice_sizes={1,784}``."""
        found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
        return tuple(int(part) for part in found.group(1).split(",") if part) if found else ()

    def called(self, *names: str) -> list[str]:
        """Return the computations that it calls."""
        found = re.findall(rf"\b(?:{'|'.join(names)})=\{{?([^,}}\s]*)", self.attributes)
        if "branch_computations" in names:
            branches = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
            found = branches.group(1).split(", ") if branches else found
        return [name.lstrip("%") for name in found]

    @property
    def cycles(self) -> int | None:
        """What the compiler of a TPU expects it to take."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found.group(1)) if found else None


Computation = dict[str, Instruction]


@dataclass
class Cost:
    """What a computation does in one run."""

    kernels: Counter[str] = field(default_factory=Counter)  # by their kind
    collectives: Counter[str] = field(default_factory=Counter)  # by kind and size
    seconds: float = 0.0
    n_bytes: float = 0.0
    flops: float = 0.0
    slices: int = 0  # that are gathered
    pixels: int = 0  # that are gathered one by one
    is_bound: bool = False  # loops end when something has converged, or after so much

    def add(self, other: "Cost", times: int = 1) -> None:
        """Add what another one does, so many times."""
        for own, more in (
            (self.kernels, other.kernels),
            (self.collectives, other.collectives),
        ):
            own.update({kind: times * count for kind, count in more.items()})
        self.seconds += times * other.seconds
        self.n_bytes += times * other.n_bytes
        self.flops += times * other.flops
        self.slices += times * other.slices
        self.pixels += times * other.pixels
        self.is_bound |= other.is_bound

    @property
    def n_kernels(self) -> int:
        """Number of kernels of all kinds."""
        return sum(self.kernels.values())


class Program:
    """A compiled program.

    Args:
        text: HLO as ``compiled.as_text()`` gives it.
        seconds: ``seconds(kernel, cost)`` says how long one of its kernels takes.

    Examples:
        >>> text = '''ENTRY %main (x: f32[100]) -> f32[100] {
        ...   %x = f32[100]{0} parameter(0)
        ...   ROOT %y = f32[100]{0} copy(%x)
        ... }'''
        >>> cost = Program(text, lambda kernel, cost: 0.5).cost
        >>> dict(cost.kernels), cost.n_bytes, cost.seconds
        ({'copy': 1}, 800.0, 0.5)
    """

    def __init__(self, text: str, seconds: Callable[[Instruction, Cost], float]) -> None:
        self.computations: dict[str, Computation] = {}
        self.roots: dict[str, Instruction] = {}
        self.seconds = seconds
        self.entry = ""
        self.cost_of = cache(self._cost_of)
        self._parse(text)

    def _parse(self, text: str) -> None:
        current: Computation = {}
        name = ""
        for line in text.splitlines():
            if line[:1] in ("%", "E") and (found := _COMPUTATION.match(line)):
                name = found.group(2)
                current = self.computations.setdefault(name, {})
                self.entry = name if found.group(1) else self.entry
            elif found := _INSTRUCTION.match(line):
                instruction = _instruction(found.group(1), line[found.end() :])
                current[instruction.name] = instruction
                if line.lstrip().startswith("ROOT "):
                    self.roots[name] = instruction

    @cached_property
    def cost(self) -> Cost:
        """What the whole program does."""
        return self.cost_of(self.entry)

    def step(self, n_steps: int) -> Cost | None:
        """Return what a step does: the body of the longest loop that runs them."""
        bodies = []
        for instruction in self._walk(self.entry):
            if instruction.opcode == "while" and self.trips(instruction)[0] == n_steps:
                bodies.append(self.cost_of(instruction.called("body")[0]))
        return max(bodies, key=lambda cost: cost.seconds, default=None)

    def count_larger(self, n_bytes: int) -> int:
        """Count the kernels that write an array of so many bytes, or more."""
        kernels = [line for line in self._walk(self.entry) if not self._is_free(line)]
        loops = ("while", "call", "conditional")
        written = [line.bytes_by_array for line in kernels if line.opcode not in loops]
        return sum(max(sizes, default=0) >= n_bytes for sizes in written)

    def _walk(self, name: str) -> Iterator[Instruction]:
        for instruction in self.computations[name].values():
            yield instruction
            if instruction.opcode in ("while", "call", "conditional"):
                names = ("body", "to_apply", "calls", "branch_computations")
                for called in instruction.called(*names):
                    yield from self._walk(called)

    def trips(self, loop: Instruction) -> tuple[int, bool]:
        """Return how often a loop runs, or may run, and whether it is the latter."""
        if found := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes):
            return int(found.group(1)), False
        (condition,) = loop.called("condition")
        reachable = [condition]
        for name in reachable:
            for instruction in self.computations[name].values():
                reachable += instruction.called("calls", "to_apply")
        lines = [line for name in reachable for line in self.computations[name].values()]
        constants = [
            int(line.attributes)
            for line in lines
            if line.opcode == "constant" and line.attributes.lstrip("-").isdigit()
        ]
        deciding = [line for line in lines if line.opcode not in _FREE | {"fusion", "copy"}]
        counts = [line.opcode for line in deciding] == ["compare"]
        return max(constants, default=1), not counts

    def _cost_of(self, name: str) -> Cost:
        total = Cost()
        for instruction in self.computations[name].values():
            opcode = instruction.opcode
            if opcode == "while":
                times, is_bound = self.trips(instruction)
                total.add(self.cost_of(instruction.called("body")[0]), times)
                total.is_bound |= is_bound
            elif opcode == "conditional":
                branches = instruction.called("branch_computations", "true_computation")
                branches += instruction.called("false_computation")
                costs = [self.cost_of(branch) for branch in branches]
                total.add(max(costs, key=lambda cost: cost.seconds))
            elif opcode == "call":
                total.add(self.cost_of(instruction.called("to_apply", "calls")[0]))
            elif not self._is_free(instruction):
                total.add(self._kernel(self.computations[name], instruction))
        return total

    def _is_free(self, instruction: Instruction) -> bool:
        if instruction.opcode in _FREE or instruction.opcode.endswith(("-done", "-update")):
            return True
        if instruction.opcode == "custom-call":
            target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
            return target is not None and target.group(1).startswith(_FREE_CALLS)
        # A TPU computes scalars beside the kernels.
        layouts = [layout for _, _, layout in instruction.arrays]
        is_scalar = instruction.entries <= 1 and any("T(" in layout for layout in layouts)
        return is_scalar and instruction.opcode != "fusion" and instruction.cycles is None

    def _kernel(self, computation: Computation, instruction: Instruction) -> Cost:
        inner = list(self._inside(computation, instruction))
        cost = Cost(kernels=Counter([self._kind(instruction, inner)]))
        for _, line in inner:
            base = line.opcode.removesuffix("-start")
            if base in _COLLECTIVES:
                cost.collectives[f"{base} of {_size(line, base)}"] += 1
        cost.n_bytes = float(self._bytes(computation, instruction))
        cost.flops = float(sum(_flops(scope, line) for scope, line in inner))
        for _, line in inner:
            if line.opcode == "gather":
                size = max(1, math.prod(line.sizes("slice_sizes")))
                cost.slices += line.entries // size
                cost.pixels += line.entries if size == 1 and line.entries >= _MANY else 0
        cost.seconds = self.seconds(instruction, cost)
        return cost

    def _inside(
        self, computation: Computation, instruction: Instruction
    ) -> Iterator[tuple[Computation, Instruction]]:
        """Yield a kernel or, of a fusion, all that is in it, each with where its operands are."""
        scopes = instruction.called("calls") if instruction.opcode == "fusion" else []
        if not scopes:
            yield computation, instruction
        for scope in scopes:
            for line in self.computations[scope].values():
                if line.opcode == "fusion":
                    yield from self._inside(self.computations[scope], line)
                else:
                    yield self.computations[scope], line

    def _kind(self, instruction: Instruction, inner: list[tuple[Computation, Instruction]]) -> str:
        opcode = instruction.opcode.removesuffix("-start")
        opcodes = {line.opcode.removesuffix("-start") for _, line in inner}
        if opcodes & set(_COLLECTIVES):
            return "collective"
        is_library = "__cublas" in instruction.attributes
        if opcodes & {"dot", "convolution"} or is_library:
            return "product"
        if "gather" in opcodes:
            return "gather"
        if instruction.entries <= _FEW:
            return "scalar"
        if opcode != "fusion":
            return opcode
        if "reduce" in opcodes:
            return "reduction" if "kind=kInput" in instruction.attributes else "sum of parts"
        if "pad" in opcodes and opcodes <= {"pad", "parameter", "constant", "bitcast", "tuple"}:
            return "pad"
        if "dynamic-update-slice" in opcodes:
            return "update of a slice"
        n_large = sum(math.prod(sizes) > _FEW for _, sizes, _ in instruction.arrays)
        return "update" if "sqrt" in opcodes and n_large >= 2 else "entry by entry"

    def _bytes(self, computation: Computation, instruction: Instruction) -> int:
        """What a kernel reads and writes; of what it slices or gathers from, only these parts."""
        operands = [computation[name] for name in instruction.operands if name in computation]
        scopes = instruction.called("calls") if instruction.opcode == "fusion" else []
        if not scopes:
            if instruction.opcode in ("gather", "dynamic-slice", "slice"):
                return 2 * instruction.n_bytes
            return instruction.n_bytes + sum(operand.n_bytes for operand in operands)
        scope = self.computations[scopes[0]]
        total = 0
        root = self.roots[scopes[0]]
        results = [scope[name] for name in root.operands] if root.opcode == "tuple" else [root]
        for result in results:
            changed = result.opcode == "dynamic-update-slice"
            total += scope[result.operands[1]].n_bytes if changed else result.n_bytes
        users: dict[str, list[tuple[Instruction, int]]] = {}
        for line in scope.values():
            for position, name in enumerate(line.operands):
                users.setdefault(name, []).append((line, position))
        for line in scope.values():
            if line.opcode == "parameter":
                total += _read(line, users) if line.n_bytes else 0
        return total


def _read(source: Instruction, users: dict[str, list[tuple[Instruction, int]]]) -> int:
    total = 0
    for user, position in users.get(source.name, []):
        if user.opcode in ("gather", "dynamic-slice", "slice") and position == 0:
            total += user.n_bytes
        elif user.opcode == "bitcast":
            total += _read(user, users)
        elif user.opcode != "dynamic-update-slice" or position:
            return source.n_bytes
    return min(total, source.n_bytes)


def _size(collective: Instruction, kind: str) -> str:
    sizes = [_SIZES.get(dtype, 0) * math.prod(sizes) for dtype, sizes, _ in collective.arrays]
    # Of all gradients at once; the others return what they were given as well.
    n_bytes = sum(sizes) if kind == "all-reduce" else max(sizes)
    return f"{n_bytes / 1e6:.3g} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.3g} kB"


def _flops(scope: Computation, line: Instruction) -> int:
    if line.opcode == "dot":
        axes = line.sizes("lhs_contracting_dims")
    else:  # a product by a library
        found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', line.attributes)
        axes = tuple(int(axis) for axis in re.findall(r"\d+", found.group(1))) if found else ()
    if not axes or line.operands[0] not in scope:
        return 0
    ((_, given, _),), (_, result, _) = scope[line.operands[0]].arrays, line.arrays[0]
    return 2 * math.prod(result) * math.prod(given[axis] for axis in axes)


def _instruction(name: str, text: str) -> Instruction:
    shape, rest = _split(text)
    opcode, _, rest = rest.lstrip().partition("(")
    operands, attributes = _split("(" + rest)
    names = tuple(re.findall(r"%([\w.\-]+)", operands))
    value = operands[1:-1] if opcode == "constant" else attributes
    return Instruction(name, shape, opcode, names, value)


def _split(text: str) -> tuple[str, str]:
    """Split after the first word, or after the parenthesis that the text begins with."""
    if not text.startswith("("):
        first, _, rest = text.partition(" ")
        return first, rest
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found.group() == "(" else -1
        if not depth:
            return text[: found.end()], text[found.end() :]
    return text, ""
