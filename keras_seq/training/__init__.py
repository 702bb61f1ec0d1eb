"""Learning rules for streams that do not end, least squares for models of plants, and what long memories ask for."""

from keras_seq.training.distributed import fit_distributed
from keras_seq.training.levenberg import LevenbergMarquardt
from keras_seq.training.monitor import GradientMonitor
from keras_seq.training.online import OnlineLearner
from keras_seq.training.pieces import free_run_pieces
from keras_seq.training.quantiles import PinballLoss
from keras_seq.training.remedies import (
    BlockIdentity,
    SpectralRadiusConstraint,
    SpectralRadiusInitializer,
    SpectralRadiusRegularizer,
)
from keras_seq.training.rtrl import RTRL
from keras_seq.training.rtrl_approximations import UORO, SnAp1
from keras_seq.training.stream_chunks import stream_chunks
from keras_seq.training.truncated import TruncatedBPTT
from keras_seq.training.workers import worker_strategy

__all__ = [
    "RTRL",
    "UORO",
    "BlockIdentity",
    "GradientMonitor",
    "LevenbergMarquardt",
    "OnlineLearner",
    "PinballLoss",
    "SnAp1",
    "SpectralRadiusConstraint",
    "SpectralRadiusInitializer",
    "SpectralRadiusRegularizer",
    "TruncatedBPTT",
    "fit_distributed",
    "free_run_pieces",
    "stream_chunks",
    "worker_strategy",
]
