"""What a pack holds and where: which tensor lies where in dense.bin, how experts are stored, which files there are."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from edge.checkpoint.layout import BLOCK_ALIGNMENT, MATRIX_ALIGNMENT, ExpertLayout, Format, MatrixLayout, round_up
from edge.checkpoint.names import DenseTensor, Part, Role, dense_tensors, part_shape
from edge.checkpoint.precision import check_group, is_sensitive, precision
from edge.config import ModelConfig

MANIFEST_FILE = "manifest.json"
DENSE_FILE = "dense.bin"
TOKENIZER_DIR = "tokenizer"
# What a tokenizer reads in that directory, and is copied from beside a checkpoint.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "generation_config.json",
)


def expert_file(layer: int) -> str:
    """The file of a layer's experts, from the pack's directory."""
    return f"layers/{layer:03d}.experts"


@dataclass(frozen=True, slots=True)
class DenseEntry:
    """A tensor in dense.bin. `layout` is None for a vector: float32 elements in `shape`."""

    name: str
    shape: tuple[int, ...]
    layout: MatrixLayout | None
    offset: int

    @property
    def nbytes(self) -> int:
        """Size in the file, the gap after it not counted."""
        return self.layout.nbytes if self.layout else 4 * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Section:
    """Tensors that lie together in dense.bin and can be read in one piece past the page cache.

    A layer's are one section, each other tensor is one of its own. `offset` and `nbytes` are multiples of 4096.
    """

    offset: int
    nbytes: int
    entries: tuple[DenseEntry, ...]


@dataclass(frozen=True)
class Contents:
    """Everything about a pack that follows from a config, a checkpoint's precisions and the choice of bits."""

    config: ModelConfig
    bits: float  # one of precision.BITS
    group: int  # 0 at 16 bits
    dense: tuple[DenseEntry, ...]
    experts: ExpertLayout | None  # None for a model without routed experts

    def without_mtp(self) -> "Contents":
        """Of the same pack without the MTP layer: what it has follows everything else."""
        config = self.config.without_mtp()
        return replace(self, config=config, dense=self.dense[: len(dense_tensors(config))])

    @cached_property
    def dense_nbytes(self) -> int:
        """Size of dense.bin."""
        last = self.dense[-1]
        return round_up(last.offset + last.nbytes, BLOCK_ALIGNMENT)

    @cached_property
    def sections(self) -> dict[str, Section]:
        """The sections of dense.bin by name, `layers.N` or a tensor's, in the order of the file."""
        pairs = zip(dense_tensors(self.config), self.dense, strict=True)
        sections = {}
        for name, members in groupby(pairs, key=lambda pair: pair[0].section):
            entries = tuple(entry for _, entry in members)
            end = entries[-1].offset + entries[-1].nbytes
            sections[name] = Section(entries[0].offset, round_up(end - entries[0].offset, BLOCK_ALIGNMENT), entries)
        return sections

    @property
    def sensitive_bits(self) -> int | None:
        """Of the matrices that `precision.is_sensitive`, None where they have as many as all else."""
        named = {
            tensor.name: entry.layout for tensor, entry in zip(dense_tensors(self.config), self.dense, strict=True)
        }
        tied = self.config.tie_embeddings
        bits = {layout.format.bits for name, layout in named.items() if layout and is_sensitive(name, is_tied=tied)}
        usual = precision(self.bits).dense
        return min(bits) if bits and usual and min(bits) != usual.bits else None

    @property
    def block_bytes(self) -> int:
        """Size of a routed expert; 0 without."""
        return self.experts.block_bytes if self.experts else 0

    @property
    def expert_files(self) -> tuple[str, ...]:
        """One for each layer, the MTP layer's last; none without routed experts."""
        return tuple(map(expert_file, range(self.config.num_expert_layers)))

    @property
    def expert_file_nbytes(self) -> int:
        """Size of each layer's file."""
        return self.config.num_experts * self.block_bytes

    @property
    def nbytes(self) -> int:
        """All model data together."""
        return self.dense_nbytes + len(self.expert_files) * self.expert_file_nbytes


def plan_contents(
    config: ModelConfig,
    bits: float,
    group: int,
    dense_form: Callable[[DenseTensor], Format],
    expert_form: Callable[[Part], Format],
    sensitive_bits: int | None = None,
) -> Contents:
    """Place every tensor of a model. The forms are the source's own: what `bits` does not quantise keeps them.

    `sensitive_bits`: as for `precision`. Raises: CheckpointError for bits or a group that no layout has.
    """
    choice = precision(bits, sensitive_bits)
    group = 0 if bits == 16 else check_group(group)

    def layout(form: Format | None, own: Format, shape: tuple[int, ...]) -> MatrixLayout:
        rows, cols = shape
        return MatrixLayout(form, rows, cols, group) if form else MatrixLayout(own, rows, cols)

    def dense(tensor: DenseTensor) -> MatrixLayout | None:
        if tensor.role is Role.VECTOR:
            return None
        return layout(choice.of_dense(tensor, is_tied=config.tie_embeddings), dense_form(tensor), tensor.shape)

    experts = None
    if config.num_experts:
        shapes = {part: part_shape(config, part) for part in Part}
        experts = ExpertLayout(
            **{part.value: layout(choice.expert(part), expert_form(part), shape) for part, shape in shapes.items()}
        )
    return Contents(config, choice.bits, group, tuple(_place(config, dense)), experts)


def _place(config: ModelConfig, layout: Callable[[DenseTensor], MatrixLayout | None]) -> Iterator[DenseEntry]:
    end, section = 0, ""
    for tensor in dense_tensors(config):
        alignment = MATRIX_ALIGNMENT if tensor.section == section else BLOCK_ALIGNMENT
        entry = DenseEntry(tensor.name, tensor.shape, layout(tensor), round_up(end, alignment))
        yield entry
        end, section = entry.offset + entry.nbytes, tensor.section
