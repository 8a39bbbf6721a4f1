"""`pretrain`: builds every part of a run from its config, and trains or goes on."""

from __future__ import annotations

import sys

import torch

from data_shards.profiles import Config
from distributed_pretrain.checkpoint import TrainingState, load_checkpoint
from distributed_pretrain.config import PretrainConfig
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.loader import EvaluationLoader, TrainingLoader
from distributed_pretrain.data.order import GlobalOrder
from distributed_pretrain.data.quarantine import Quarantine
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer, train_wordpiece
from distributed_pretrain.methods.base import Method
from distributed_pretrain.methods.catalog import build_method
from distributed_pretrain.telemetry.metrics_log import MetricsLog
from distributed_pretrain.telemetry.tensorboard import TensorBoard
from distributed_pretrain.training.config import OptimizerConfig
from distributed_pretrain.training.engine import Engine
from distributed_pretrain.training.run_folder import RunFolder
from distributed_pretrain.training.trainer import Trainer
from distributed_pretrain.training.validation import Validator
