"""Bad input of every kind, of which `bad_inputs.py` gives each to its command."""

from .accepted import ACCEPTED, reason
from .bench import ENDS, HANG, LINE, TAKEN, TRACEBACK, UNCLEAR, Bench, Case, Result
from .checkpoints import checkpoint_cases
from .classes import class_cases
from .command_lines import word_cases
from .configs import config_cases
from .crops import crop_cases, crops, video
from .galleries import gallery_cases
from .options import option_cases
from .pictures import picture_cases
from .run_folders import run_folder_cases
from .tables import table_cases

KINDS = (
    run_folder_cases, gallery_cases, checkpoint_cases, picture_cases, table_cases, config_cases,
    word_cases, option_cases, class_cases, crop_cases,
)  # fmt: skip

__all__ = [
    "ACCEPTED", "ENDS", "HANG", "KINDS", "LINE", "TAKEN", "TRACEBACK", "UNCLEAR", "Bench", "Case",
    "Result", "crops", "reason", "video",
]  # fmt: skip
