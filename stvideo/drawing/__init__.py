"""Pictures of what happened to the patches: pure functions from frames and a `TokenTrace` to images."""

from stvideo.drawing.geometry import Crop
from stvideo.drawing.overlay import paint
from stvideo.drawing.sheet import Sheet, draw_sheet
from stvideo.drawing.states import LayerStates, layer_states

__all__ = ["Crop", "LayerStates", "Sheet", "draw_sheet", "layer_states", "paint"]
