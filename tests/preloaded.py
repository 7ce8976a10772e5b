"""What the server of processes.py has imported and compiled, so that each process need not."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before any library reads it

import faiss  # noqa: F401
import sklearn.cluster  # noqa: F401
import torch

import pplr_lightning.commands.training  # noqa: F401
from pplr_lightning.functional.warm_up import compile_loops

torch.set_num_threads(1)  # a process that is forked beside threads may hang
compile_loops()
