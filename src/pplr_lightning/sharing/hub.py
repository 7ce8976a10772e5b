"""Sharing a model on the Hugging Face hub: weights as safetensors, options as JSON, a card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar, cast

from huggingface_hub import ModelCard, ModelHubMixin, constants, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pplr_lightning.atomic_write import write_whole, written_whole
from pplr_lightning.data.transforms import Preprocessing
from pplr_lightning.sharing.model_card import write_card
from pplr_lightning.weights.checkpoints import check_weights

WEIGHTS = constants.SAFETENSORS_SINGLE_FILE
CONFIG = constants.CONFIG_NAME
DOWNLOAD = ("revision", "cache_dir", "force_download", "local_files_only", "token")
TAGS = ["person-re-identification", "unsupervised-learning", "image-retrieval", "pplr"]

M = TypeVar("M", bound="HubMixin")


class HubMixin(ModelHubMixin, library_name="pplr_lightning", tags=TAGS):
    """Gives a method `save_pretrained`, `from_pretrained` and `push_to_hub`.

    Of huggingface_hub's two mixins this takes the plain one. The other, for PyTorch, passes over
    weights that are missing and falls back to a pickle file. What is shared is `model.safetensors`,
    the weights of the network, without what a method keeps to train it (classifiers, memories);
    `config.json`, the options; and `README.md`, the model card, unless there is one already.

    `save_pretrained(folder, model_card_kwargs={...})` and `push_to_hub(repo_id,
    model_card_kwargs={...})` hand these arguments to `generate_model_card`.
    """

    def _save_pretrained(self, save_directory: Path) -> None:
        """Writes weights and options; the mixin calls it, and writes the card."""
        module = cast(Any, self)
        weights = {name: tensor.contiguous() for name, tensor in _shared(module).items()}
        with written_whole(save_directory / WEIGHTS) as aside:
            save_file(weights, aside, metadata={"format": "pt"})
        config = _without_folders(module.options)
        if module.preprocessing is not None:
            config["preprocessing"] = module.preprocessing._asdict()
        text = json.dumps(config, indent=2)
        write_whole(save_directory / CONFIG, text + "\n")

    @classmethod
    def _from_pretrained(
        cls: type[M],
        *,
        model_id: str,
        config: dict[str, Any] | None = None,
        **options: Any,
    ) -> M:
        """Builds the module from its options and loads its weights; the mixin calls it.

        Raises:
            FileNotFoundError: One of the two files is missing.
            ValueError: The options are another class's, or the weights do not fit them.
        """
        download = {name: options.pop(name) for name in DOWNLOAD if name in options}
        fix = "give a folder or a repository that save_pretrained or push_to_hub wrote"
        if config is None:
            raise FileNotFoundError(f"{model_id}: has no {CONFIG}; {fix}")
        file = Path(model_id, WEIGHTS)
        if not Path(model_id).is_dir():
            file = Path(hf_hub_download(model_id, WEIGHTS, **download))
        elif not file.is_file():
            raise FileNotFoundError(f"{model_id}: has no {WEIGHTS}; {fix}")
        stored = {name: value for name, value in config.items() if name != "preprocessing"}
        # The mixin hands on what the config says, as if it were the caller's.
        given = {n: v for n, v in options.items() if n not in stored or v != stored[n]}
        try:
            module: Any = cast(Any, cls).from_options(stored, given)
            weights = load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file}: no readable safetensors file ({error})") from error
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{model_id}: {CONFIG}: {error}") from error
        for network in module.all_networks:
            network.expect_weights()
        check_weights(weights, _shared(module))
        module.load_state_dict(weights, strict=False)  # all of the network's, as just checked
        if "preprocessing" in config:
            made_with = {name: tuple(value) for name, value in config["preprocessing"].items()}
            module.preprocessing = Preprocessing(**made_with)
        return module.eval()

    def generate_model_card(
        self,
        *,
        run: str | Path | None = None,
        data: str | None = None,
        license: str = "unknown",
    ) -> ModelCard:
        """Writes the card of this model.

        Args:
            run: Folder of the run that trained it: data, labels, camera ids, start and results
                are told as its report tells them.
            data: What it was trained on, where there is no run or in other words.
            license: Of the weights, as the hub abbreviates it; the terms of the training data
                decide which is possible.

        Raises:
            FileNotFoundError: There is no such folder, or no `config.yaml` in it that can be read.
            ValueError: `run` is no folder of a run.
        """
        info = self._hub_mixin_info.model_card_data.to_dict()
        header = {**info, "license": license}
        return write_card(header, self, run=None if run is None else Path(run), data=data)


def _shared(module: Any) -> dict[str, Tensor]:
    state = module.state_dict()
    return {name: state[name] for name in state if name.startswith("network.")}


def _without_folders(options: dict[str, Any]) -> dict[str, Any]:
    """Leaves of a file that the training started from its name: its folder is nobody's business."""
    network = options["network"]
    weights = network["init_args"].get("weights")
    init_args = {**network["init_args"], "weights": weights and Path(weights).name}
    return {**options, "network": {**network, "init_args": init_args}}
