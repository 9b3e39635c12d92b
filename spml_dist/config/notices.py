"""What can be had and is probably not meant: a line for people, never an error."""

from __future__ import annotations

from spml_dist.config.models import Config

RELEASED, RELEASED_CELLS = (6, 12, 18, 24), 64
"""dilations of the release, and the cells along a side of the crop that it trains with"""


def unreached_dilations(config: Config) -> str | None:
    """One line on dilations whose outer taps lie outside every training crop; None where there are none.

    A tap that is a whole map away from its centre meets nothing but padding in training, so weight decay
    alone moves it; whole images, which are larger, then use what it was initialised with. The side of the map
    is crop ÷ output_stride, which is not known here where the stride is the backbone's own.
    """
    model = config.model
    if model.head != "deeplab" or model.output_stride is None:
        return None
    cells = -(-config.stream.crop // model.output_stride)
    beyond = [dilation for dilation in model.dilations if dilation >= cells]
    if not beyond:
        return None
    fitting = sorted({max(1, round(dilation * cells / RELEASED_CELLS)) for dilation in RELEASED})
    return (
        f"model.dilations {', '.join(map(str, beyond))} are never trained: a crop has {cells} cells a side "
        f"(stream.crop / model.output_stride); the release's proportions would be {fitting}"
    )
