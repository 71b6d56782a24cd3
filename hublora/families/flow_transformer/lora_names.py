"""Names of a transformer's layers in adapter files, from one table for each family.

    layout      a layer's name
    diffusers   transformer_blocks.3.attn.to_q
    original    double_blocks.3.img_attn.qkv    (its weight may stack several layers' rows)
    flattened   either of them with _ for .

A table has the original names on the left and on the right the diffusers layers whose rows they
stack, in that order; `{}` stands for the number of a block.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

from hublora.families.single_file import DENOISER_PREFIXES

Table = Mapping[str, tuple[str, ...]]

CLIP_PREFIXES = {
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
}


def same(*layers: str) -> Table:
    """Return the rows of layers that have one name in both namings."""
    return {layer: (layer,) for layer in layers}


@dataclass(frozen=True)
class TransformerLoraNames:
    """Layer names of a family with a transformer; see `hublora.families.lora_names.LoraNames`.

    Attributes:
        table: Original name -> diffusers layers whose rows its weight stacks.
        kohya_prefixes: Component -> prefix in kohya's layout, as it is written.
        flat_prefixes: Prefix of names whose dots are underscores -> component, as it is read.
        native_prefixes: Prefix of dotted original names -> component, as ComfyUI writes them.
        kohya_is_native: Whether kohya's tools flatten the original names or diffusers'.
        swapped: Diffusers layers whose two halves of rows the original has in the other order.
        swapped_pairs: Layers that are swapped where their weights have two rows for each column.
        aliases: Names that other tools write -> diffusers layers whose rows they stack.
    """

    table: Table
    kohya_prefixes: Mapping[str, str] = field(default_factory=lambda: {"transformer": "lora_unet"})
    flat_prefixes: Mapping[str, str] = field(
        default_factory=lambda: {
            "lora_unet_": "transformer",
            "lora_transformer_": "transformer",
            "lycoris_": "transformer",
        }
    )
    native_prefixes: Mapping[str, str] = field(
        default_factory=lambda: dict.fromkeys(DENOISER_PREFIXES, "transformer")
    )
    kohya_is_native: bool = True
    swapped: tuple[str, ...] = ()
    swapped_pairs: tuple[str, ...] = ()
    aliases: Table = field(default_factory=dict)

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        """Pattern of a diffusers layer, and its original name in the table."""
        return _patterns_of(self.table)

    @cached_property
    def _known(self) -> re.Pattern[str]:
        layers = (layer for layers in self.table.values() for layer in layers)
        names = {*self.table, *self.aliases, *layers}
        return re.compile("|".join(_pattern(name).pattern for name in sorted(names)))

    @cached_property
    def _flat(self) -> list[tuple[re.Pattern[str], str]]:
        """Pattern of a flattened name -> the name with dots."""
        names = {*self.table, *(layer for layers in self.table.values() for layer in layers)}
        return [(_pattern(name.replace(".", "_")), name) for name in sorted(names)]

    def native_layers(self, layers: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        return _expanded(self._patterns, self.table, layers)

    def readable_layers(self, layers: Collection[str]) -> Mapping[str, tuple[str, ...]]:
        found = _expanded(_patterns_of(self.aliases), self.aliases, layers)
        return {**self.native_layers(layers), **found}

    def is_swapped(self, layer: str, shape: tuple[int, ...] | None) -> bool:
        is_pair = shape is not None and shape[0] == 2 * shape[1]
        names = (*self.swapped, *(self.swapped_pairs if is_pair else ()))
        return any(_pattern(one).fullmatch(layer) for one in names)

    def knows(self, layer: str) -> bool:
        return self._known.fullmatch(layer) is not None

    def kohya_layers(
        self, layers: Collection[str], base_layers: Collection[str] | None = None
    ) -> Mapping[str, str]:
        return {layer: layer for layer in layers}

    def kernel(self, layer: str, architecture: str | None) -> tuple[int, int] | None:
        return None  # all are linear layers

    def unflatten(self, name: str) -> str | None:
        return next(
            (found for one in self._dotted(name) if (found := self.diffusers_name(one))), None
        )

    def diffusers_name(self, name: str) -> str | None:
        if any(pattern.fullmatch(name) for pattern, _ in self._patterns):
            return name
        for native, layers in {**self.table, **self.aliases}.items():
            if match := _pattern(native).fullmatch(name):
                reordered = (*self.swapped, *self.swapped_pairs)
                if len(layers) > 1 or layers[0] in reordered:
                    return None
                return layers[0].format(*match.groups())
        return None

    def knows_flat(self, name: str) -> bool:
        """Tell whether a flattened name without its prefix is one of the family's."""
        return next(self._dotted(name), None) is not None

    def current_name(self, component: str, layer: str) -> str:
        return layer

    def _dotted(self, name: str) -> Iterator[str]:
        for pattern, dotted in self._flat:
            if match := pattern.fullmatch(name):
                yield dotted.format(*match.groups())


def _patterns_of(table: Table) -> list[tuple[re.Pattern[str], str]]:
    return [(_pattern(layer), native) for native, layers in table.items() for layer in layers]


def _expanded(
    patterns: Sequence[tuple[re.Pattern[str], str]], table: Table, layers: Collection[str]
) -> Mapping[str, tuple[str, ...]]:
    """Return the names on the left of a table that layers have -> the layers on their right."""
    found = {}
    for layer in layers:
        for pattern, native in patterns:
            if match := pattern.fullmatch(layer):
                numbers = match.groups()
                parts = tuple(part.format(*numbers) for part in table[native])
                found[native.format(*numbers)] = parts
    return found


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Return the regular expression of a name of the table."""
    return re.compile(re.escape(name).replace(r"\{\}", r"(\d+)"))
