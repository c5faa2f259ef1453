"""What became of every patch of a clip, read from a `TokenTrace` alone: the same for every method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stvideo.core.errors import StvideoError
from stvideo.core.tokens import Layer, TokenTrace
from stvideo.drawing.colors import palette, token_colors

DROPPED, FUSED, KEPT, SHARED = 0, 1, 2, 3
"""State of a patch: gone; alive only inside a fused token; a token of its own; inside a token that several
patches share (a semantic token, a merged token)."""

FUSED_COLOR = (146, 80, 240)  # violet: rare in natural pictures
FEW_FUSED = 3  # up to so many fused tokens in a frame share one tint; more get a colour each


@dataclass(frozen=True)
class LayerStates:
    """One row of a picture.

    Attributes:
        layer: block number or ``"output"``.
        method: name of the reduction that wrote the entry.
        token: (T, H, W) token that carries each patch, -1 if dropped.
        state: (T, H, W) one of `DROPPED`, `FUSED`, `KEPT`, `SHARED`.
        fused: (T, H, W) True where the patch lives on only inside a fused token.
        color: (T, H, W, 3) sRGB tint of fused and shared patches, 0 elsewhere.
        score: (T, H, W) float32, or None where the method has no scores.
        is_output: what the network ends with (the last reduction layer, if nothing changed after it).
    """

    layer: Layer
    method: str
    token: NDArray[np.int64]
    state: NDArray[np.uint8]
    fused: NDArray[np.bool_]
    color: NDArray[np.uint8]
    score: NDArray[np.float32] | None
    is_output: bool

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

    def frame(self, index: int, num_frames: int) -> int:
        """The frame of the patch grid that holds frame ``index`` of ``num_frames`` input frames.

        They differ for models whose patches span several frames.
        """
        return index * self.token.shape[0] // num_frames


def layer_states(trace: TokenTrace, clip: int = 0) -> list[LayerStates]:
    """One `LayerStates` per entry of the trace, in the order of the layers.

    An ``"output"`` entry that equals the last reduction layer is left out; a dense model has that entry only.
    Colours are kept from layer to layer for tokens that carry the same patches.

    Raises:
        StvideoError: the trace holds nothing, or not this clip.
    """
    if not trace.assign:
        raise StvideoError("token trace: it is empty; run the model with return_trace=True")
    numbers = sorted(layer for layer in trace.assign if isinstance(layer, int))
    names = sorted(layer for layer in trace.assign if isinstance(layer, str))
    order: list[Layer] = [*numbers, *names]
    batch = trace.assign[order[0]].shape[0]
    if not 0 <= clip < batch:
        raise StvideoError(f"token trace: it holds clips 0 to {batch - 1}, not clip {clip}")
    states: list[LayerStates] = []
    colors_of: dict[bytes, int] = {}  # the patches of a token -> palette entry
    for layer in order:
        token = trace.assign[layer][clip].cpu().numpy()
        fused = trace.fused[layer][clip].cpu().numpy() if layer in trace.fused else np.zeros(token.shape, bool)
        score = trace.score[layer][clip].float().cpu().numpy() if layer in trace.score else None
        before = states[-1] if states else None
        if layer == "output" and before is not None and _same(before, token, fused):
            states[-1] = LayerStates(**{**before.__dict__, "is_output": True})
            continue
        state = _classify(token, fused)
        color = _color(token, fused, state, colors_of)
        method = trace.method.get(layer, "")
        states.append(LayerStates(layer, method, token, state, fused, color, score, layer == "output"))
    return states


def _same(before: LayerStates, token: NDArray[np.int64], fused: NDArray[np.bool_]) -> bool:
    return np.array_equal(before.token, token) and np.array_equal(before.fused, fused)


def _classify(token: NDArray[np.int64], fused: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """State of every patch, from how many patches its token carries and whether they are fused."""
    alive = token >= 0
    _, inverse, counts = np.unique(token, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(token.shape)
    shared = alive & (counts[inverse] > 1)
    only_fused = np.bincount(inverse.ravel(), weights=(~fused).ravel()) == 0
    # Where most patches share their token (a semantic layer), a token of one patch is a semantic token as well,
    # and so is one that took in fused patches only.
    unfused = alive & ~fused
    semantic = unfused.any() and shared[unfused].mean() >= 0.5
    if semantic:
        shared = alive
    else:
        shared &= ~only_fused[inverse]
    state = np.full(token.shape, KEPT, dtype=np.uint8)
    state[shared] = SHARED
    state[alive & fused & ~shared] = FUSED
    state[~alive] = DROPPED
    return state


def _color(
    token: NDArray[np.int64], fused: NDArray[np.bool_], state: NDArray[np.uint8], colors_of: dict[bytes, int]
) -> NDArray[np.uint8]:
    """Tint of every patch; ``colors_of`` brings the colours of earlier layers and takes those of this one."""
    color = np.zeros((*token.shape, 3), dtype=np.uint8)
    color[state == FUSED] = FUSED_COLOR
    tinted = state == SHARED
    if max(len(np.unique(frame[where])) for frame, where in zip(token, state == FUSED, strict=True)) > FEW_FUSED:
        tinted = tinted | (state == FUSED)
    wanted = np.where(tinted, token, -1)
    members = {int(t): np.flatnonzero(token == t).tobytes() for t in np.unique(wanted) if t >= 0}
    given = {t: colors_of[patches] for t, patches in members.items() if patches in colors_of}
    for t, entry in token_colors(wanted, given).items():
        color[wanted == t] = palette()[entry]
        colors_of[members[t]] = entry
    return color
