"""From scores to sequences."""

from keras_seq.decoding.beam import beam_search
from keras_seq.decoding.crf import CRFLoss, crf_check_labels, crf_loss, crf_marginals
from keras_seq.decoding.ctc import CTCLoss, ctc_check_labels, ctc_loss
from keras_seq.decoding.ctc_align import ctc_align
from keras_seq.decoding.ctc_beam import ctc_beam_search, ctc_greedy
from keras_seq.decoding.greedy import greedy
from keras_seq.decoding.rollout import feed_back
from keras_seq.decoding.sampling import sample
from keras_seq.decoding.viterbi import ViterbiTags, viterbi

__all__ = [
    "CRFLoss",
    "CTCLoss",
    "ViterbiTags",
    "beam_search",
    "crf_check_labels",
    "crf_loss",
    "crf_marginals",
    "ctc_align",
    "ctc_beam_search",
    "ctc_check_labels",
    "ctc_greedy",
    "ctc_loss",
    "feed_back",
    "greedy",
    "sample",
    "viterbi",
]
