"""Clusters of images that are densely connected by their Jaccard distance."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, Literal, cast

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from scipy.sparse import csr_matrix
from torch import Tensor

from pplr_lightning.data import Sample
from pplr_lightning.functional.checks import check_counts
from pplr_lightning.labelers.density import DensityLabeler
from pplr_lightning.labelers.grid import (
    EPS,
    K1,
    MIN_SAMPLES,
    TRACKLETS_K1,
    Setting,
    check_grid,
    choose,
    label_grid,
)
from pplr_lightning.labelers.labeler import warn_of_large
from pplr_lightning.labelers.space import Space
from pplr_lightning.labelers.stages import Stages

Auto = Literal["auto"]
WARNED = ("k1", "min_samples")  # of which a large one is warned of
CHOSEN_ANEW = 20_000  # images up to which a choice takes less time than an epoch


class DBSCAN(DensityLabeler):
    """DBSCAN on the k-reciprocal Jaccard distance, the labels of PPLR and most methods since SpCL.

    `functional.jaccard_distance` and `functional.dbscan`, with the work divided over the ranks.

    Options that are `auto` are chosen anew in every epoch, as features change, from more than
    20,000 images in the first one alone: of the settings of `label_grid` the first of its
    `candidates`, as `pplr labels` lists them; where there is none, the one with the fewest doubts,
    with a warning. A line and the run's history tell what was chosen; checkpoints hold it.

    Args:
        k1: Nearest neighbours for the Jaccard distance, the image itself included.
        k2: Neighbours over which its sets are averaged, likewise; `auto` is a fifth of k1.
        eps: Jaccard distance up to which images are neighbours, in (0, 1].
        min_samples: Neighbours, itself included, that make an image a core of a cluster.
        rho: Share of the smallest distances of all pairs whose mean, in the first epoch, is taken
            for eps in all epochs (`functional.choose_eps`), in (0, 1), as MMT and GCL choose it;
            None takes `eps`.
        cannot_link: Two boxes in one frame are two people: where the data say the frame
            (`Sample.frame`), no cluster holds two images, or tracklets, that were seen in one frame
            of one camera.
        images_per_person: Images that a person has on average, at least 1, where that is known or
            guessed; only what is `auto` is chosen by it.

    Attributes:
        setting: What was chosen last; None before, and where nothing is `auto`.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> features = torch.eye(8).repeat_interleave(6, dim=0)
        >>> DBSCAN(k1=6, k2=2).label(Space.of(features)).tolist()[:13]
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2]
        >>> labeler = DBSCAN(k1=6, k2="auto", eps="auto", min_samples=2)
        >>> classes = labeler.label(Space.of(features))
        >>> str(labeler.setting)
        'k1 6, k2 1, eps 0.4, min_samples 2'
    """

    def __init__(
        self,
        *,
        k1: int | Auto = 30,
        k2: int | Auto = 6,
        eps: float | Auto = 0.5,
        min_samples: int | Auto = 4,
        rho: float | None = None,
        cannot_link: bool = True,
        images_per_person: float | None = None,
    ) -> None:
        options = {"k1": k1, "k2": k2, "eps": eps, "min_samples": min_samples}
        self._numbers: dict[str, Any] = {n: v for n, v in options.items() if v != "auto"}
        self._is_auto = len(self._numbers) < len(options)
        check_counts("labeler", **{n: v for n, v in self._numbers.items() if n != "eps"})
        density = {"eps": 0.5, "min_samples": 4} | self._numbers  # of `auto` there is none yet
        super().__init__(
            eps=density["eps"],
            min_samples=density["min_samples"],
            rho=rho,
            cannot_link=cannot_link,
        )
        if self._is_auto and rho is not None:
            raise ValueError(
                f"labeler.rho={rho} chooses eps by another rule than auto: leave out one of the two"
            )
        self.k1 = k1
        self.k2 = k2
        self.eps = cast(float, eps)
        self.min_samples = cast(int, min_samples)
        self.images_per_person = images_per_person
        self.setting: Setting | None = None
        if self._is_auto or images_per_person is not None:
            check_grid(**self._grid())

    def check(self, samples: Sequence[Sample]) -> None:
        """Checks that there are as many images as neighbours; warns of what is large for them.

        Raises:
            ValueError: There are not.
        """
        images = len(samples)
        counts = {"k1": TRACKLETS_K1[0]} | {n: v for n, v in self._numbers.items() if n[0] == "k"}
        check_counts("labeler", images, **counts)
        warn_of_large("labeler", images, **{n: v for n, v in self._numbers.items() if n in WARNED})

    def label(self, space: Space) -> Tensor:
        """Clusters all images; every rank does so on the whole sparse graph."""
        if not self._is_auto:
            return super().label(space)
        if self.setting is None or space.total <= CHOSEN_ANEW:
            self.setting = self._choose(space)
        return DBSCAN(**self.setting._asdict(), cannot_link=self.cannot_link).label(space)

    def distance(self, space: Space, max_distance: float) -> csr_matrix:
        """Computes the Jaccard distance."""
        k1, k2 = cast(int, self.k1), cast(int, self.k2)
        return space.jaccard(k1=k1, k2=k2, max_distance=max_distance)

    def _grid(self, *, tracklets: bool = False) -> dict[str, Any]:
        """Lists what there is to choose from, as `label_grid` takes it."""
        tried = {"k1": TRACKLETS_K1 if tracklets else K1, "eps": EPS, "min_samples": MIN_SAMPLES}
        given = {name: [value] for name, value in self._numbers.items()}
        return {"k2": None, **tried, **given, "images_per_person": self.images_per_person}

    def _choose(self, space: Space) -> Setting:
        """Chooses a setting; every rank finds the same."""
        images, numbers = space.frames or (space, None)
        grid = self._grid(tracklets=numbers is not None)
        images.features  # noqa: B018  # before its tracklets', which would let them go
        space.neighbors(min(max(grid["k1"]), space.total))  # the clock has both by their names
        tried = copy(space)
        tried.stages = Stages()
        tried.cannot_link = space.cannot_link if self.cannot_link else None
        images = tried if numbers is None else copy(images)
        images.persons = None
        tried.frames = None if numbers is None else (images, numbers)
        with space.stages("choice"):
            found = label_grid(tried, **grid)
            best = choose(found)
        line = (
            f"labeler auto: of {len(found)} settings {best.setting}, which finds "
            f"{best.values['clusters']:,.0f} clusters and {best.values['outliers']:.0%} outliers"
        )
        if best.setting == self.setting:
            return best.setting
        if best.doubts:
            rank_zero_warn(
                f"{line}. All are in doubt, this one for {' and '.join(best.doubts)}: look at what "
                "`pplr labels` shows, or start from better features (network.weights)"
            )
        else:
            rank_zero_info(line)
        return best.setting

    def chosen_options(self) -> dict[str, float]:
        """Tells what was chosen."""
        return super().chosen_options() if self.setting is None else self.setting._asdict()

    def state_dict(self) -> dict[str, Any]:
        """Keeps what was chosen."""
        setting = None if self.setting is None else tuple(self.setting)
        return {**super().state_dict(), "setting": setting}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it."""
        super().load_state_dict(state_dict)
        stored = state_dict.get("setting")  # older checkpoints have none
        setting = Setting(*stored) if stored is not None else None
        # A number that is given now counts more than what was chosen before.
        fits = setting is not None and self._numbers.items() <= setting._asdict().items()
        self.setting = setting if self._is_auto and fits else None
