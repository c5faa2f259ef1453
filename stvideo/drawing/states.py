"""Read the state of every patch of a clip from a `TokenTrace` alone, in the same way for every method."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stvideo.core.errors import StvideoError
from stvideo.core.trace import Layer, TokenTrace
from stvideo.drawing.colors import token_colors

DROPPED, FUSED, KEPT, SHARED = 0, 1, 2, 3
"""State of a patch: gone; alive only inside a fused token; a token of its own; inside a token that stands for
several patches (a semantic token, a merged token)."""

FUSED_COLOR = (146, 80, 240)  # violet: rare in natural pictures
FEW_FUSED = 3  # up to so many fused tokens in a frame share one tint; more get a colour each


@dataclass(frozen=True)
class LayerStates:
    """One row of a picture. T counts the time steps of the patch grid, each of ``tubelet_size`` frames.

    Attributes:
        layer: block number, ``"embed"`` or ``"output"``.
        method: name of the reduction that wrote the entry.
        token: (T, H, W) token that carries each patch, -1 if dropped.
        state: (T, H, W) one of `DROPPED`, `FUSED`, `KEPT`, `SHARED`.
        fused: (T, H, W) True where the patch lives on only inside a fused token.
        color: (T, H, W, 3) sRGB tint of fused and shared patches, 0 elsewhere.
        score: (T, H, W) float32, or None where the method has no scores.
        is_output: what the network ends with (the last reduction layer, if nothing changed after it).
        tubelet_size: frames of the clip that a patch spans.
    """

    layer: Layer
    method: str
    token: NDArray[np.int64]
    state: NDArray[np.uint8]
    fused: NDArray[np.bool_]
    color: NDArray[np.uint8]
    score: NDArray[np.float32] | None
    is_output: bool
    tubelet_size: int = 1

    @property
    def name(self) -> str:
        """The layer as pictures call it."""
        return self.layer if isinstance(self.layer, str) else f"layer {self.layer}"

    @property
    def num_tokens(self) -> int:
        """Patch tokens of the clip that are left, fused ones included."""
        return int((np.unique(self.token) >= 0).sum())

    @property
    def num_patches(self) -> int:
        return self.token.size

    @property
    def reduces(self) -> bool:
        """Whether fewer tokens than patches are left."""
        return self.num_tokens < self.num_patches

    @property
    def count(self) -> str:
        """How many tokens are left, and which share of the patches that is, for people."""
        share = f" ({self.num_tokens / self.num_patches:.0%})" if self.reduces else ""
        return f"{self.num_tokens:,} tokens{share}"

    def step_of(self, frame: int) -> int:
        """Find the time step t of the patch grid that covers a frame of the clip.

        Raises:
            StvideoError: the grid ends before that frame.
        """
        step = frame // self.tubelet_size
        if not 0 <= step < len(self.token):
            raise StvideoError(
                f"frame {frame}: the trace covers {len(self.token)} x {self.tubelet_size} frames; give layer_states "
                "the tubelet_size of the model"
            )
        return step


def layer_states(
    trace: TokenTrace, clip: int = 0, tubelet_size: int = 1, only: Layer | None = None
) -> list[LayerStates]:
    """Read one `LayerStates` per entry of the trace, in the order in which they were written.

    An ``"output"`` entry that equals the last reduction layer is left out; a dense model has that entry only.
    Colours are kept from layer to layer for tokens that carry the same patches.

    Args:
        trace: of a batch of clips.
        clip: which of them.
        tubelet_size: frames that a patch of the model spans (``model.tubelet_size``).
        only: the one entry to read, which then is left out in no case; None: all.

    Raises:
        StvideoError: the trace holds nothing, or not this clip.
    """
    if not trace.assign:
        raise StvideoError("token trace: it is empty; run the model with return_trace=True")
    batch = len(next(iter(trace.assign.values())))
    if not 0 <= clip < batch:
        raise StvideoError(f"token trace: it holds clips 0 to {batch - 1}, not clip {clip}")
    states: list[LayerStates] = []
    palette_rows: dict[bytes, int] = {}
    for layer in trace.assign if only is None else [only]:
        token = trace.assign[layer][clip].cpu().numpy()
        fused = trace.fused[layer][clip].cpu().numpy() if layer in trace.fused else np.zeros(token.shape, bool)
        score = trace.score[layer][clip].float().cpu().numpy() if layer in trace.score else None
        before = states[-1] if states else None
        if layer == "output" and before and np.array_equal((before.token, before.fused), (token, fused)):
            states[-1] = replace(before, is_output=True)
            continue
        state = _classify(token, fused, trace.kind.get(layer, "keep") == "semantic")
        color = _tint(token, state, palette_rows)
        method, is_output = trace.method.get(layer, ""), layer == "output"
        states.append(LayerStates(layer, method, token, state, fused, color, score, is_output, tubelet_size))
    return states


def _classify(token: NDArray[np.int64], fused: NDArray[np.bool_], semantic: bool) -> NDArray[np.uint8]:
    """Find the state of every patch. In a semantic layer every token is shared, even by a single patch."""
    alive = token >= 0
    _, inverse, counts = np.unique(token, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(token.shape)
    has_unfused = np.bincount(inverse.ravel(), weights=~fused.ravel()) > 0
    shared = alive & (semantic | ((counts > 1) & has_unfused)[inverse])
    return np.select([~alive, shared, fused], [DROPPED, SHARED, FUSED], KEPT).astype(np.uint8)


def _tint(token: NDArray[np.int64], state: NDArray[np.uint8], palette_rows: dict[bytes, int]) -> NDArray[np.uint8]:
    """Colour fused and shared patches, (T, H, W, 3); see `token_colors` for ``palette_rows``."""
    fused = state == FUSED
    many = max(len(np.unique(frame[where])) for frame, where in zip(token, fused, strict=True)) > FEW_FUSED
    color = token_colors(np.where((state == SHARED) | (fused & many), token, -1), palette_rows)
    if not many:
        color[fused] = FUSED_COLOR
    return color
