"""What compress_file takes beside the configuration, and the images that come of it."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from subpc.compression.calibration import generate
from subpc.compression.distillation import MAX_IMAGES, Lesson
from subpc.compression.shape import check_image_shape
from subpc.compression.steps import Shape
from subpc.errors import ConfigError
from subpc.images.prepare import Preparation
from subpc.images.unlabelled import MAX_IMAGES as ENOUGH
from subpc.images.unlabelled import Given, read_calibration
from subpc.library.report import TensorInfo
from subpc.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from subpc.compression.evaluation import Evaluation

SYNTHETIC_STEPS = 200


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What compress_file takes beside the configuration. All of it may be left out.

    shape: of the network's input, where the file does not say it. calibration: a folder of images
    without labels, or `fashion-mnist[:FOLDER]`; synthetic: how many images to generate instead, in
    so many steps of matching them to the batch norms.
    evaluation: labelled images (see subpc.compression.evaluation), with max_drop: find the
    strongest setting that loses at most so many points of accuracy; fixed: settings that this
    search leaves as they are. preparation: how images become inputs. lesson: how the compressed
    network learns from the float one at the end, on images that the method measures on, too, unless
    others are given.
    """

    shape: Shape | None = None
    calibration: str | None = None
    synthetic: int | None = None
    synthetic_steps: int = SYNTHETIC_STEPS
    seed: int = 0
    evaluation: str | None = None
    max_drop: float | None = None
    fixed: frozenset[str] = frozenset()
    preparation: Preparation = field(default_factory=Preparation)
    lesson: Lesson | None = None

    def __post_init__(self) -> None:
        if self.calibration is not None and self.synthetic is not None:
            raise ConfigError("Both calibration and synthetic images were asked for; choose one.")
        if (self.max_drop is None) != (self.evaluation is None):
            raise ConfigError(
                "max_drop needs labelled images, and they are read for it alone: give both"
                " --max-drop and --eval."
            )
        if self.shape is not None:
            check_image_shape(self.shape)


def given_images(
    model: "nn.Module", extras: Extras, shape: Shape | None, progress: Progress
) -> Given:
    """Images to measure on: those of a folder, or generated ones; none without either."""
    if extras.calibration is not None:
        info = TensorInfo(name="input", shape=known(shape))
        return read_calibration(extras.calibration, info, extras.preparation, progress)
    return generated(model, extras.synthetic, shape, extras.synthetic_steps, extras.seed, progress)


def images_of_the_lesson(
    model: "nn.Module", extras: Extras, shape: Shape | None, progress: Progress
) -> Given:
    """Images to learn from; none without a lesson."""
    lesson = extras.lesson
    if lesson is None:
        return Given()
    if lesson.generated is not None:
        steps, seed = extras.synthetic_steps, extras.seed
        return generated(model, lesson.generated, shape, steps, seed, progress)
    info = TensorInfo(name="input", shape=known(shape))
    return read_calibration(lesson.source, info, extras.preparation, progress, most=MAX_IMAGES)


def measures_on_the_lesson(extras: Extras) -> bool:
    """Whether the method measures on the images that the network learns from."""
    return extras.lesson is not None and extras.calibration is None and extras.synthetic is None


def enough_of(given: Given) -> Given:
    """As many as statistics need, evenly from all."""
    if given.images is None or len(given.images) <= ENOUGH:
        return given
    images = given.images[:: -(-len(given.images) // ENOUGH)]
    return replace(given, images=images, label=f"{len(images)} of {given.label}")


def generated(
    model: "nn.Module",
    count: int | None,
    shape: Shape | None,
    steps: int,
    seed: int,
    progress: Progress,
) -> Given:
    """`count` images made from the network, none for None."""
    if count is None:
        return Given()
    return generate(ready(model), count, known(shape), steps=steps, seed=seed, progress=progress)


def ready(model: "nn.Module") -> "nn.Module":
    """A copy that can be run."""
    from subpc.algorithms.network.checked_copy import checked_copy

    return checked_copy(model)


def working_shape_of(model: "nn.Module") -> Shape | None:
    """An input's shape that the network runs on, found by trying."""
    from subpc.algorithms.network.layer_noise import working_shape

    return working_shape(ready(model))


def known(shape: Shape | None) -> Shape:
    """The shape; ConfigError where there is none."""
    if shape is None:
        raise ConfigError(
            "The network does not say its input's shape. Pass one, such as --shape 1,3,224,224."
        )
    return shape


def evaluation_of(model: "nn.Module", extras: Extras, shape: Shape | None) -> "Evaluation | None":
    """Labelled images for the search of the strength, if there are any."""
    if extras.evaluation is None:
        return None
    from subpc.compression.evaluation import Evaluation

    evaluation = Evaluation(
        extras.evaluation, known(shape), replace(extras.preparation, size=known(shape)[3])
    )
    evaluation.check(model)
    return evaluation
