"""What changes with the progress of training to make it shorter: the size of the images, and the stages still trained."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn.functional import interpolate

from resfit.recipe import Freezing, Resizing
from resfit.training.state import TrainState


def make_shrink(resizing: Resizing) -> Callable[[Tensor, float], Tensor]:
    """Return `(images float (N, C, H, W), progress) -> images` of the size that `resizing` has at this progress in [0, 1).

    Bilinear over the area that a new pixel covers, as Pillow's BILINEAR when it shrinks.
    """

    def shrink(images: Tensor, progress: float) -> Tensor:
        passed = _passed(resizing.until, progress)
        if passed == len(resizing.sizes):
            return images
        size = resizing.sizes[passed]
        return interpolate(images, (size, size), mode="bilinear", antialias=True)

    return shrink


def make_freeze(freezing: Freezing) -> Callable[[TrainState, float], None]:
    """Return `(state, progress) -> None`, which leaves the parameters of the stages that `freezing` has passed untrained.

    Their forward pass keeps no graph; BatchNorm statistics go on.
    """

    def freeze(state: TrainState, progress: float) -> None:
        passed = _passed(freezing.until, progress)
        trained = passed == 0
        for name, parameter in state.model.named_parameters():
            stage = name.removeprefix("stages.").partition(".")[0]
            trained = trained or (name.startswith("stages.") and int(stage) >= passed) or name.startswith("head.")
            parameter.requires_grad_(trained)

    return freeze


def _passed(until: Sequence[float], progress: float) -> int:
    # 1e-9: the progress of a whole number of epochs may come out just below it
    return sum(progress + 1e-9 >= share for share in until)
