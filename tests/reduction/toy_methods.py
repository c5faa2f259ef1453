"""A small method for every hook; the tests that use them register them (`toys`), other tests never see them."""

from typing import Any

import torch
from torch import Tensor, nn

from stvideo.core.tokens import Tokens
from stvideo.reduction.base import _REGISTRY, Reduction, register_reduction
from stvideo.reduction.checks import check_count
from stvideo.reduction.hooks import AttentionInfo, Budget, Host, Outcome
from stvideo.reduction.keep_or_drop import KeepOrDrop, num_kept
from stvideo.reduction.merging import match_bipartite, merge_tokens


@register_reduction("toy_norm")
class KeepLargest(KeepOrDrop):
    """Score tokens by their length: a keep-or-drop method."""

    def score(self, layer: int, tokens: Tokens, info: AttentionInfo) -> Tensor:
        return tokens.patches.norm(dim=-1)


@register_reduction("toy_bright")
class KeepBright(Reduction):
    """Drop dark patches at the embedding, as many as there are: ragged counts from pixels (joint attention)."""

    budgets = {"threshold": Budget("share")}  # noqa: RUF012

    def __init__(self, host: Host, *, threshold: float = 0.5) -> None:
        super().__init__(host)
        self.threshold = threshold

    def embed(self, tokens: Tokens, clip: Tensor) -> Tokens:
        size = clip.shape[-1] // tokens.grid[2]
        bright = nn.functional.avg_pool2d(clip.mean(1), size).reshape(tokens.patches.shape[:3]) > self.threshold - 0.5
        bright[:, :, 0] = True
        return tokens.select(bright)


@register_reduction("toy_merge")
class MergeSimilar(Reduction):
    """Merge the most similar tokens in every layer, by their keys; sizes bias the attention of later blocks."""

    budgets = {"r": Budget("count", dense=0)}  # noqa: RUF012
    needs = frozenset({"keys"})

    def __init__(self, host: Host, *, r: int = 2, layers: Any = None) -> None:
        super().__init__(host, layers=range(host.depth) if layers is None else layers)
        self.r = check_count(self.name, "r", r)

    def mid(self, layer: int, tokens: Tokens, info: AttentionInfo) -> Tokens:
        assert info.keys is not None
        metric = info.keys.mean(dim=2)
        pairs = match_bipartite(metric, self.r, first=tokens.num_prefix, valid=tokens.valid)
        return merge_tokens(tokens, layer, self.name, *pairs)


@register_reduction("toy_gather")
class PredictAndGather(Reduction):
    """Mask tokens in training, gather them in inference, with state that travels and a loss on it (as DynamicViT)."""

    budgets = {"keep_rate": Budget("share", dense=1.0)}  # noqa: RUF012

    def __init__(self, host: Host, *, keep_rate: float = 0.5, layers: Any = (1, 2)) -> None:
        super().__init__(host, layers=layers)
        self.keep_rate = keep_rate
        self.predictors = nn.ModuleList(nn.Linear(host.embed_dim, 1) for _ in self.layers)

    def before(self, layer: int, tokens: Tokens) -> Tokens:
        place = self.layers.index(layer)
        logit = self.predictors[place](tokens.patches.detach()).squeeze(-1)
        alive = tokens.policy if tokens.policy is not None else torch.ones_like(logit)
        keep = num_kept(self.keep_rate ** (place + 1), tokens.grid[1] * tokens.grid[2])
        logit = logit.masked_fill(alive.detach() < 0.5, -torch.inf)
        kept = logit.topk(min(keep, logit.shape[2]), dim=2).indices.sort(dim=2).values
        if not self.training:
            return tokens.gather(kept, aligned=False)
        hard = torch.zeros_like(logit).scatter(2, kept, 1.0)
        soft = logit.sigmoid() * alive
        policy = hard + soft - soft.detach()
        return tokens.replace(policy=policy, per_clip={**tokens.per_clip, f"share{place}": policy.mean(dim=(1, 2))})

    def losses(self, outcome: Outcome) -> dict[str, Tensor]:
        shares = torch.stack([value for key, value in outcome.tokens.per_clip.items() if key.startswith("share")])
        return {"ratio": (shares - 0.3).square().mean()}


@register_reduction("toy_queries")
class FewQueries(Reduction):
    """Let half of the tokens ask all of them: attention with fewer queries than keys, and a count of its own."""

    needs = frozenset({"class_attention", "values"})

    def __init__(self, host: Host, *, layers: Any = (1,)) -> None:
        super().__init__(host, layers=layers)

    def queries(self, layer: int, tokens: Tokens, info: AttentionInfo) -> Tokens:
        assert info.class_attention is not None and info.values is not None
        score = info.class_attention * info.values.norm(dim=(2, 4))
        kept = score.topk(num_kept(0.5, score.shape[2]), dim=2).indices
        return tokens.gather(kept, aligned=False)


@register_reduction("toy_parked")
class Parked(Reduction):
    """Set half of the tokens aside in one layer and bring them back for the head; count the layers they missed."""

    def __init__(self, host: Host, *, layers: Any = (1,)) -> None:
        super().__init__(host, layers=layers)

    def before(self, layer: int, tokens: Tokens) -> Tokens:
        half = tokens.patches.shape[2] // 2
        order = tokens.patches.norm(dim=-1).argsort(dim=2, stable=True)
        rest = tokens.gather(order[:, :, half:], aligned=False)
        seen = torch.full(rest.patches.shape[:3], float(layer), device=rest.patches.device)
        parked = {"parked": rest.patches, "parked_index": rest.indices()}
        return tokens.gather(order[:, :, :half], aligned=False).replace(
            per_clip={**tokens.per_clip, **parked}, per_token={"seen": seen[:, :, :half]}
        )

    def finish(self, tokens: Tokens) -> Tokens:
        state = dict(tokens.per_clip)
        patches = torch.cat((tokens.patches, state.pop("parked")), dim=2)
        index = torch.cat((tokens.indices(), state.pop("parked_index")), dim=2)
        return tokens.replace(patches=patches, index=index, per_clip=state, per_token={})


@register_reduction("toy_calibrated")
class Calibrated(Reduction):
    """Keep the places that were longest in a calibration set: constants in a buffer."""

    needs_calibration = True

    def __init__(self, host: Host, *, tokens: int = 4, layers: Any = (1,)) -> None:
        super().__init__(host, layers=layers)
        self.register_buffer("places", torch.arange(tokens))

    def calibrate(self, model: nn.Module, clips: Any) -> None:
        with torch.no_grad():
            length = sum(model.embed(clip).patches.norm(dim=-1).mean(dim=(0, 1)) for clip in clips)
        self.places.copy_(length.topk(len(self.places)).indices)

    def before(self, layer: int, tokens: Tokens) -> Tokens:
        return tokens.gather(self.places.expand(*tokens.patches.shape[:2], -1))


ANY_ATTENTION = ("toy_norm", "toy_merge", "toy_gather", "toy_queries", "toy_parked", "toy_calibrated")
JOINT_ONLY = ("toy_bright",)
TOYS = {name: _REGISTRY.pop(name) for name in (*ANY_ATTENTION, *JOINT_ONLY)}
