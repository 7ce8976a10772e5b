"""From a decoded image to the tensor the model takes."""

from __future__ import annotations

from typing import NamedTuple

from torchvision.transforms import v2

from pplr_lightning.data.batched import RGB, EvalTransform, TrainTransform, to_tensor

# ImageNet's statistics, which most pretrained backbones expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def eval_transform(
    image_size: tuple[int, int], *, mean: RGB = MEAN, std: RGB = STD
) -> EvalTransform:
    """Builds the transform of evaluation and labelling: resize (H, W) and normalise."""
    return EvalTransform(image_size, mean=mean, std=std)


class Preprocessing(NamedTuple):
    """What images go through before a model embeds them: `eval_transform` and its arguments.

    Attributes:
        image_size: Height and width.
        mean: Of each colour, subtracted from values in [0, 1].
        std: Of each colour, by which they then are divided.
    """

    image_size: tuple[int, int]
    mean: RGB = MEAN
    std: RGB = STD

    def transform(self) -> v2.Transform:
        """Builds the transform."""
        return eval_transform(self.image_size, mean=self.mean, std=self.std)


def train_transform(
    image_size: tuple[int, int],
    *,
    padding: int = 10,
    random_erasing: float = 0.5,
    mean: RGB = MEAN,
    std: RGB = STD,
) -> TrainTransform:
    """Builds the paper's augmentation: flip, pad and crop, random erasing (Sec. 4.2).

    Args:
        image_size: Height and width.
        padding: Pixels added on each side before an image of the old size is cut out.
        random_erasing: Probability that a rectangle is filled with the mean colour (Zhong et al.,
            AAAI 2020), in [0, 1].
        mean: Of each colour, subtracted from values in [0, 1].
        std: Of each colour, by which they then are divided.
    """
    return TrainTransform(
        image_size, padding=padding, random_erasing=random_erasing, mean=mean, std=std
    )


def contrastive_transform(
    image_size: tuple[int, int], *, mean: RGB = MEAN, std: RGB = STD
) -> v2.Transform:
    """Builds SimCLR's augmentation (Chen et al., ICML 2020) for upright person crops.

    The crop keeps most of the body, and the colour moves as between two cameras: more in light
    and tint than in hue, for a person is known by the colour of the clothes.
    """
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                image_size,
                scale=(0.5, 1.0),
                ratio=(0.35, 0.75),
                interpolation=v2.InterpolationMode.BICUBIC,
                antialias=True,
            ),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.3, 0.03)], p=0.8),
            v2.RandomGrayscale(p=0.05),
            v2.RandomApply([v2.GaussianBlur(5, sigma=(0.1, 1.5))], p=0.3),
            *to_tensor(mean, std),
            v2.RandomErasing(p=0.5, scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3), value=0),
        ]
    )
