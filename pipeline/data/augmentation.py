"""Policies of augmentation: albumentations' transforms, presets, and steps that mix several samples.

A copy depends on (seed, image_id, number of the copy) and on the samples of its split alone, so neither workers nor
order change it.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.data import geometry
from pipeline.data.mixing import Mix
from pipeline.data.presets import PRESETS
from pipeline.errors import ParamsError, PipelineError, did_you_mean
from pipeline.params import check_options
from pipeline.structures import DatasetInfo, Sample

if TYPE_CHECKING:
    from albumentations import Compose

NESTED = ("OneOf", "SomeOf", "RandomOrder", "Sequential")
"""Albumentations' transforms of transforms, whose own are again entries."""

UNFIT = ("Normalize", "ToFloat", "FromFloat", "ToTensorV2", "ToTensor3D", "Lambda")
"""What gives no uint8 image, or takes a function, which params.yaml cannot say."""


class Samples(Protocol):
    """A split of a store."""

    def __len__(self) -> int: ...

    def read(self, index: int, masks: bool = False) -> Sample:
        """One sample, with masks where asked."""
        ...


@dataclass(frozen=True)
class Policy:
    """Steps of augmentation, one after the other: runs of albumentations' transforms, and mixing steps between them.

    Attributes:
        steps: each a `Compose` or a `Mix`.
        min_visibility: share of an object that a step must leave to keep it.
    """

    steps: tuple[Compose | Mix, ...]
    min_visibility: float

    def check(self, info: DatasetInfo, where: str) -> None:
        """Whether a dataset can be augmented so.

        Raises:
            ParamsError: a step would make truth that a store cannot hold.
        """
        for step in self.steps:
            if isinstance(step, Mix):
                why = step.refusal(info)
            elif {"semantic", "panoptic"} & set(info.tasks) and geometry.blends_masks(step.transforms):
                why = "a label map would get numbers of other classes; fix: leave mask_interpolation as it is, and "
                why += "area_for_downscale at image"
            else:
                why = None
            if why:
                raise ParamsError(f"params.yaml {where}: {why}")


def compose(transforms: Sequence[Mapping[str, Any]], where: str, min_visibility: float = 0.0) -> Policy:
    """A policy of transforms, one after the other.

    Args:
        transforms: each a mapping of `name` and the arguments, all as albumentations calls them, or of `preset` and
            its options.
        where: their place in params.yaml, such as `augmentations.scenes_varied.transforms`.
        min_visibility: share of an object that must stay in the image.

    Raises:
        ParamsError: a transform, a preset or an argument that is not known, or a value that is refused.
    """
    flat = [step for index, entry in enumerate(transforms) for step in _steps(dict(entry), f"{where}.{index}")]
    steps: list[Compose | Mix] = []
    for is_mix, group in itertools.groupby(flat, lambda step: isinstance(step, Mix)):
        run = list(group)
        steps += run if is_mix else [geometry.composed(run, min_visibility)]
    return Policy(tuple(steps), min_visibility)


def _steps(entry: dict[str, Any], where: str) -> list[Any]:
    """What one entry of params.yaml says."""
    if "preset" not in entry:
        return [_transform(entry, where)]
    name = entry.pop("preset")
    if name not in PRESETS:
        raise ParamsError(f"params.yaml {where}.preset: no such preset ({name!r}); {did_you_mean(str(name), PRESETS)}")
    check_options(PRESETS[name], entry, where)
    return _made(PRESETS[name], entry, f"preset {name}", where)


def _transform(arguments: dict[str, Any], where: str) -> Any:
    import albumentations

    choices = _choices()
    name = arguments.pop("name", None)
    if name not in choices:
        raise ParamsError(f"params.yaml {where}.name: no such transform ({name!r}); {_nearest(str(name), choices)}")
    known = inspect.signature(choices[name].__init__).parameters.keys() - {"self"}
    for key in arguments:
        if key not in known:
            raise ParamsError(f"params.yaml {where}.{key}: unknown argument of {name}; {did_you_mean(key, known)}")
    if name in NESTED:
        inner = arguments.get("transforms")
        if not isinstance(inner, list) or not all(isinstance(entry, dict) for entry in inner):
            what = f"should be a list of transforms ({inner!r}); fix: write one"
            raise ParamsError(f"params.yaml {where}.transforms: {what}")
        places = (f"{where}.transforms.{index}" for index in range(len(inner)))
        steps = [_steps(dict(entry), place) for entry, place in zip(inner, places, strict=True)]
        if any(
            not isinstance(step, albumentations.BasicTransform | albumentations.BaseCompose)
            for s in steps
            for step in s
        ):
            raise ParamsError(
                f"params.yaml {where}.transforms: a preset that mixes samples stands at the top only; "
                "fix: move it there"
            )
        whole = [each[0] if len(each) == 1 else albumentations.Sequential(each, p=1.0) for each in steps]
        arguments["transforms"] = whole
        return _made(choices[name], arguments, name, where)
    return _made(choices[name], {key: _tuples(value) for key, value in arguments.items()}, name, where)


@cache
def _choices() -> dict[str, Any]:
    """The transforms of images that params.yaml can name."""
    import albumentations

    found = {
        name: cls
        for name, cls in vars(albumentations).items()
        if inspect.isclass(cls)
        and issubclass(cls, albumentations.BasicTransform)
        and cls.__module__.startswith("albumentations.augmentations")
        and name not in UNFIT
        # these ask for further images at each call; `mosaic` is a preset here
        and not {"metadata_key", "reference_images"} & inspect.signature(cls.__init__).parameters.keys()
    }
    return found | {name: getattr(albumentations, name) for name in NESTED}


def _made(maker: Callable[..., Any], arguments: dict[str, Any], title: str, where: str) -> Any:
    try:
        return maker(**arguments)
    except (ValueError, TypeError) as error:
        fault = _first_fault(error.__cause__ or error)
        raise ParamsError(f"params.yaml {where}: {title} refuses its arguments: {fault}; fix: correct them") from None


def _nearest(name: str, choices: Mapping[str, Any]) -> str:
    """The nearest spelling alone where there is one: the choices are more than a hundred."""
    answer, _, rest = did_you_mean(name, choices).partition("choices: ")
    return answer.strip() or f"choices: {rest}"


def _first_fault(error: BaseException) -> str:
    """One line of an error that may be pydantic's."""
    faults = error.errors() if hasattr(error, "errors") else None
    if not faults:
        return " ".join(str(error).split())
    return f"{'.'.join(map(str, faults[0]['loc']))}: {faults[0]['msg']} ({faults[0].get('input')!r})"


def _tuples(value: Any) -> Any:
    """Lists of params.yaml as the tuples that albumentations asks for."""
    if isinstance(value, list):
        return tuple(_tuples(entry) for entry in value)
    return {key: _tuples(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def copy_seed(seed: int, image_id: str, number: int, step: int = 0) -> int:
    """The seed of one step of one copy, below 2**32."""
    name = f"{seed}/{image_id}/{number}" + (f"/{step}" if step else "")
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])


def augmented(
    sample: Sample, policy: Policy, info: DatasetInfo, *, seed: int, number: int, partners: Samples | None = None
) -> Sample:
    """One augmented copy of a sample, all its truth transformed along; its id is `<image_id>~<number>`.

    Args:
        sample: read with its masks.
        policy: made by `compose`.
        info: of the dataset.
        seed: of the augmentation.
        number: of the copy, from 1.
        partners: the split that mixing steps draw from.

    Raises:
        PipelineError: a transform fails on this image; names both.
    """
    copy = sample
    for index, step in enumerate(policy.steps):
        own = copy_seed(seed, sample.image_id, number, index)
        try:
            if isinstance(step, Mix):
                copy = _mixed(copy, step, partners, info, own, policy.min_visibility)
            else:
                step.set_random_seed(own)
                copy = geometry.moved(copy, step, info, policy.min_visibility)
        except PipelineError:
            raise
        except Exception as error:  # whatever a library says of this image
            what = " ".join(str(error).split())[:200]
            raise PipelineError(
                f"{sample.file_name} copy {number}: the augmentation fails on this image "
                f"({type(error).__name__}: {what}); fix: choose transforms that take "
                f"{'grey' if info.channels == 1 else 'RGB'} images of {sample.image.shape[0]}x{sample.image.shape[1]}"
            ) from error
    name = PurePosixPath(sample.file_name)
    return replace(
        copy,
        image_id=f"{sample.image_id}~{number}",
        file_name=str(name.with_name(f"{name.stem}~{number}.png")),
        group=sample.group,
    )


def _mixed(
    sample: Sample, step: Mix, partners: Samples | None, info: DatasetInfo, seed: int, min_visibility: float
) -> Sample:
    rng = np.random.default_rng(seed)
    if rng.random() >= step.p:
        return sample
    assert partners is not None, "a policy that mixes samples needs the split that it draws from"
    places = rng.integers(len(partners), size=step.num_partners)
    others = [partners.read(int(place), masks=True) for place in places]
    return step(sample, others, info, rng, min_visibility)
