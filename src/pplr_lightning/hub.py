"""Sharing a model on the Hugging Face hub: weights as safetensors, options as JSON, a card."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelCard, ModelHubMixin, constants, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pplr_lightning.checkpoints import check_weights
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.model_card import write_card
from pplr_lightning.retrieval_module import RetrievalModule

WEIGHTS = constants.SAFETENSORS_SINGLE_FILE
CONFIG = constants.CONFIG_NAME
PREPROCESSING = "preprocessing"  # in the config, beside the options
PATHS = ("warm_start", "backbone_weights")  # options whose folders are nobody else's business
TAGS = ["person-re-identification", "unsupervised-learning", "image-retrieval", "pplr"]

M = TypeVar("M", bound="SharedModule")


class SharedModule(RetrievalModule, ModelHubMixin, library_name="pplr_lightning", tags=TAGS):
    """A module with `save_pretrained`, `from_pretrained` and `push_to_hub`.

    Of huggingface_hub's two mixins this takes the plain one. The other, for PyTorch, passes over
    weights that are missing, falls back to a pickle file, and cannot store the number of classifier
    rows in use. What is shared is `model.safetensors`, without the classifiers, which tell apart
    the clusters of one run; `config.json`, the options of the module; and `README.md`, the model
    card, unless there is one already.

    `save_pretrained(folder, model_card_kwargs={...})` and `push_to_hub(repo_id,
    model_card_kwargs={...})` hand these arguments to `generate_model_card`.
    """

    def _save_pretrained(self, save_directory: Path) -> None:
        """Writes weights and options; the mixin calls it, and writes the card."""
        weights = {name: tensor.contiguous() for name, tensor in _shared(self).items()}
        save_file(weights, save_directory / WEIGHTS, metadata={"format": "pt"})
        options = {name: value for name, value in self.hparams.items() if name[0] != "_"}
        options |= {name: Path(options[name]).name for name in PATHS if options.get(name)}
        if self.preprocessing is not None:
            options[PREPROCESSING] = self.preprocessing._asdict()
        text = json.dumps(options, indent=2)
        (save_directory / CONFIG).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def _from_pretrained(
        cls: type[M],
        *,
        model_id: str,
        config: dict[str, Any] | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **options: Any,
    ) -> M:
        """Builds the module from its options and loads its weights; the mixin calls it.

        Raises:
            FileNotFoundError: One of the two files is missing.
            ValueError: The options are another class's, or the weights do not fit them.
        """
        fix = "give a folder or a repository that save_pretrained or push_to_hub wrote"
        if config is None:
            raise FileNotFoundError(f"{model_id}: has no {CONFIG}; {fix}")
        preprocessing = config.get(PREPROCESSING)
        strange = sorted(
            set(config) - {PREPROCESSING} - set(inspect.signature(cls.__init__).parameters)
        )
        if strange:
            raise ValueError(
                f"{model_id}: {cls.__name__} has no option {strange[0]} that {CONFIG} names; it is "
                "another class's, or of a newer version of this library"
            )
        file = Path(model_id, WEIGHTS)
        if not Path(model_id).is_dir():
            downloaded = hf_hub_download(
                model_id,
                WEIGHTS,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
            file = Path(downloaded)
        elif not file.is_file():
            raise FileNotFoundError(f"{model_id}: has no {WEIGHTS}; {fix}")
        module = cls(**options)
        module._load_shared(file)
        if preprocessing is not None:
            module.preprocessing = Preprocessing(*map(tuple, preprocessing.values()))
        return module

    def _load_shared(self, file: Path) -> None:
        try:
            weights = load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file}: no readable safetensors file ({error})") from error
        check_weights(weights, _shared(self))
        self.load_state_dict(weights, strict=False)  # all but the classifiers, as just checked
        self._has_weights = True
        self.eval()

    def generate_model_card(
        self,
        *,
        run: str | Path | None = None,
        data: str | None = None,
        license: str = "unknown",
    ) -> ModelCard:
        """Writes the card of this model.

        Args:
            run: Folder of the run that trained it: data and camera ids are read from its
                `config.yaml`, results from its `summary.json`.
            data: What it was trained on, where there is no run or in other words.
            license: Of the weights, as the hub abbreviates it; the terms of the training data
                decide which is possible.

        Raises:
            FileNotFoundError: `run` is no folder of a run.
        """
        info = self._hub_mixin_info.model_card_data.to_dict()
        return write_card(
            {**info, "license": license},
            options=dict(self.hparams),
            num_features=self.model.num_features,
            run=None if run is None else Path(run),
            data=data,
        )


def _shared(module: RetrievalModule) -> dict[str, Tensor]:
    """Returns what is shared of the weights."""
    state = module.state_dict()
    return {name: state[name] for name in state if ".classifier." not in name}
