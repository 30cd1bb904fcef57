"""What no skill scores: the rows that stand beside every model's."""

import numpy as np
from numpy.typing import ArrayLike

from lobbycard.errors import InputError
from lobbycard.scoring.arrays import as_label_values, as_truth
from lobbycard.scoring.decide import decide
from lobbycard.scoring.metrics import N_BOOT, summarize


def baselines(truth: ArrayLike, prior: ArrayLike, n_boot: int = N_BOOT, seed: int = 0) -> dict[str, dict]:
    """Score three ways of answering without looking at the item.

    * `none`: nothing for anyone, which `decide` would never answer; all probabilities 0.
    * `top2`: the two labels commonest in training for everyone (the one label, if there is only one).
    * `prior`: each label's training share as its probability, with the thresholds that suit it. For macro-F1 the
      best answer without skill is every label for everyone: F1 = 2p / (1 + p) at prevalence p. That is far from
      the best for samples-F1, which `top2` shows better.

    All three rank nothing, so their mAP is the mean prevalence of the labels.

    Args:
        truth: (N, L), booleans or zeros and ones.
        prior: (L,), the share of training items with each label.
        n_boot: bootstrap replicates over items.

    Returns:
        {"none", "top2", "prior"}, each as `metrics.summarize` returns it.

    Raises:
        InputError: shapes that differ, a prior outside [0, 1], or no positive in all of truth.

    Source:
        Lipton, Elkan, Narayanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure", ECML 2014:
        an uninformative classifier does best to call everything positive.
    """
    truth = as_truth(truth)
    if np.ndim(prior) != 1:
        raise InputError(f"prior must hold one share for each of the {truth.shape[1]} labels, got {prior!r}")
    probabilities = np.broadcast_to(as_label_values(prior, truth.shape[1], "prior"), truth.shape)
    answers = {
        "none": (np.zeros(truth.shape), np.zeros(truth.shape, dtype=bool)),
        "top2": (probabilities, decide(probabilities, thresholds=0, top_k=2)),
        "prior": (probabilities, decide(probabilities, thresholds=0)),
    }
    return {name: summarize(truth, *answer, n_boot=n_boot, seed=seed) for name, answer in answers.items()}
