"""STViT-R on ViT-like models: semantic tokens for a few layers, then every patch gets its own token back.

Chang et al., "Making Vision Transformers Efficient from A Token Sparsification View", CVPR 2023, section 3.3.

A *dumbbell unit* is ordinary blocks on all tokens, then an STGM of two blocks, semantic blocks, and a recovery block in
which the patch tokens, which waited unchanged, read the semantic tokens. The network keeps full resolution at its
ends, as dense tasks need, at the cost of a few tokens in between.

The paper's units are Swin's; what we chose for class tokens and for time: the class token travels with the semantic
tokens and is one more query of the recovery; each frame reads the slot that its middle lies in (under joint attention
all of them); the recovery block's temporal attention runs on the semantic tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.core.layers import LayerScale
from stvideo.core.tokens import Tokens
from stvideo.reduction.base import Reduction, register_reduction
from stvideo.reduction.hooks import Budget, Host
from stvideo.reduction.stgm import SemanticTokens


class DumbbellUnit(nn.Module):
    """The new weights of one unit: its STGM, and the scales of its recovery."""

    def __init__(self, stgm: SemanticTokens, dim: int, layer_scale: float) -> None:
        super().__init__()
        self.stgm = stgm
        self.attn_scale = LayerScale(dim, layer_scale)
        self.mlp_scale = LayerScale(dim, layer_scale)


@register_reduction("stvitr")
class SemanticRecovery(Reduction):
    """Dumbbell units in place of runs of blocks (STViT-R, section 3.3).

    Args:
        host: the model.
        layers: the blocks that units stand for; every run of consecutive ones is a unit: two of STGM, any number of
            semantic blocks, one of recovery. Default: of every six blocks all but the first, as in STViT-R-Swin.
        grid: semantic tokens (t, h, w), as for ``stgm``.
        num_semantic_tokens: instead of ``grid``, how many per frame; a square number.
        layer_scale: initial scale of the branches of STGM and recovery, as for ``stgm``.
        global_centers: as for ``stgm``.
        grids: as for ``stgm``; all units draw the same one.

    Raises:
        StvideoError: a run of fewer than three blocks, or as for ``stgm``.
    """

    recovers = True
    budgets = {name: Budget(budget.kind) for name, budget in SemanticTokens.budgets.items()}  # noqa: RUF012

    def __init__(
        self,
        host: Host,
        *,
        layers: Sequence[int] | int | None = None,
        grid: Sequence[int | None] | None = None,
        num_semantic_tokens: int | None = None,
        layer_scale: float = 1.0,
        global_centers: bool = True,
        grids: Sequence[Sequence[int | None]] | None = None,
    ) -> None:
        super().__init__(host, layers=[n for n in range(host.depth) if n % 6] if layers is None else layers)
        self.starts = [n for n in self.layers if n - 1 not in self.layers]
        self.attention = host.attention
        self.units = nn.ModuleList()
        for start in self.starts:
            if self.span_from(start) < 3:
                raise StvideoError(
                    f"{self.name}: the run of blocks from {start} is too short: a unit needs two blocks of semantic "
                    "token generation before the one that recovers"
                )
            stgm = SemanticTokens(
                host,
                layers=(start, start + 1),
                grid=grid,
                num_semantic_tokens=num_semantic_tokens,
                layer_scale=layer_scale,
                global_centers=global_centers,
                grids=grids,
            )
            self.units.append(DumbbellUnit(stgm, host.embed_dim, layer_scale))

    @property
    def generators(self) -> list[SemanticTokens]:
        """The STGM of every unit."""
        return [unit.stgm for unit in self.units if isinstance(unit, DumbbellUnit)]

    @classmethod
    def example(cls, host: Host) -> dict[str, Any]:
        return {"layers": tuple(range(1, min(host.depth, 4))), "grid": (None, 1, 1)}

    def draw_budget(self, generator: torch.Generator) -> None:
        grids = self.generators[0].grids
        if grids:
            self.train_with({"grid": grids[int(torch.randint(len(grids), (), generator=generator))]})

    def training_budgets(self, count: int) -> list[dict[str, Any]]:
        return self.generators[0].training_budgets(count)

    def with_budget(self, budget: Mapping[str, Any]) -> dict[str, Any]:
        return super().with_budget(budget) | {"grids": self.generators[0].served_grids}

    def state_summary(self) -> dict[str, float]:
        return self.generators[0].state_summary()

    def replace(self, layer: int, tokens: Tokens, blocks: Sequence[Any]) -> Tokens:
        """Run one unit: the same patch tokens (B, F, N, C) in and out, updated."""
        unit = self.units[self.starts.index(layer)]
        assert isinstance(unit, DumbbellUnit)
        trace = tokens.trace
        entered = None if trace is None else trace.snapshot()
        semantic = unit.stgm("replace", layer, tokens, blocks[:2])
        for i, block in enumerate(blocks[2:-1], start=2):
            semantic = block(semantic, layer + i)
            if trace is not None:
                trace.repeat(layer + i, self.name)
        tokens = self._recover(unit, blocks[-1], tokens, semantic)
        if trace is not None and entered is not None:
            trace.restore(entered)
            trace.repeat(layer + len(blocks) - 1, self.name)
        return tokens

    def _recover(self, unit: DumbbellUnit, block: Any, tokens: Tokens, semantic: Tokens) -> Tokens:
        """Patch and class tokens query the semantic tokens of their slot, then the feed-forward part."""
        semantic = block.mix_time(semantic)
        batch, groups, _, dim = tokens.patches.shape
        slots, count = semantic.patches.shape[1], tokens.num_prefix
        slot = torch.arange(groups, device=tokens.patches.device) * slots // groups

        def per_group(x: Tensor) -> Tensor:
            """Repeat each slot for its groups. (B, 1 or t, ...) -> (B, F, ...)."""
            return x.expand(batch, groups, *x.shape[2:]) if x.shape[1] == 1 else x.index_select(1, slot)

        prefix = per_group(semantic.prefix)
        query = block.norm1(torch.cat((prefix, tokens.patches), dim=2).flatten(0, 1))
        k, v = block.attn.project_kv(block.norm1(semantic.patches.flatten(0, 1)))
        k = block.rotate(k, semantic, semantic.indices())
        k, v = (per_group(x.view(batch, slots, *x.shape[1:])).flatten(0, 1) for x in (k, v))
        k_own, v_own = block.attn.project_kv(query[:, :count])
        k, v = torch.cat((k_own, k), dim=2), torch.cat((v_own, v), dim=2)
        out = unit.attn_scale(block.ls1(block.attn.attend(block.rotate(block.attn.project_q(query), tokens), k, v)))
        out = block.drop_path(out.view(batch, groups, -1, dim))
        shared = tokens.prefix.shape[1] == 1
        state = tokens.replace(prefix=semantic.prefix if shared else prefix)
        return block.feed_forward(block.add_residual(state, out), unit.mlp_scale)
