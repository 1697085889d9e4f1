"""A loaded model as lm-eval's own `hf` model, with a batch that fits in memory and our progress."""

from __future__ import annotations

from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from isotone.engine.progress import Progress, Silent
from isotone.evaluation.scoring import batch_size

Encoded = tuple[tuple[str, str], list[int], list[int]]

_MAX_BATCH = 8  # More gains nothing on a CPU, and answers are short.
_COPIES = 2  # lm-eval makes a log-softmax of the whole batch.


class HarnessModel(HFLM):  # type: ignore[misc]
    """lm-eval's HFLM over a model that is loaded already.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The tokenizer of the model.
    model : PreTrainedModel
        The model, on the device where it runs.
    progress : Progress, optional
        Is told how many requests are answered.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=1)
        self._progress = progress or Silent()

    def get_model_info(self) -> dict[str, Any]:
        """Return nothing: lm-eval would look for the model on the hub."""
        return {}

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihoods of continuations.

        Parameters
        ----------
        requests : list of Instance
            Pairs of a context and its continuation.
        disable_tqdm : bool
            Whether lm-eval shows its own bar; it gives way to ours in any case.

        Returns
        -------
        list of (float, bool)
            The log-likelihood in nats, and whether the continuation is the likeliest one.
        """
        results: list[tuple[float, bool]] = super().loglikelihood(
            requests, disable_tqdm=disable_tqdm
        )
        return results

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """Return the log-likelihoods of whole texts.

        Parameters
        ----------
        requests : list of Instance
            The texts.
        disable_tqdm : bool
            Whether lm-eval shows its own bar; it does not by default.

        Returns
        -------
        list of float
            The log-likelihoods, in nats.
        """
        self._progress.begin("scoring texts", 0, unit="windows")
        results: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        return results

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Generate continuations up to a stop.

        Parameters
        ----------
        requests : list of Instance
            Pairs of a context and the settings of generation.
        disable_tqdm : bool
            Whether lm-eval shows its own bar; it does not by default.

        Returns
        -------
        list of str
            The continuations.
        """
        self._progress.begin("generating", len(requests), unit="answers")
        results: list[str] = super().generate_until(requests, disable_tqdm=disable_tqdm)
        return results

    def _loglikelihood_tokens(
        self,
        requests: list[Encoded],
        disable_tqdm: bool = True,  # noqa: ARG002 (lm-eval's bar never shows beside ours)
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        if override_bs is None:
            longest = max(len(context) + len(answer) for _, context, answer in requests)
            fitting = batch_size(self.model, longest, n_models=_COPIES)
            self.batch_size_per_gpu = min(_MAX_BATCH, fitting)
            self._progress.begin("answering", len(requests), unit="answers")
        results: list[tuple[float, bool]] = super()._loglikelihood_tokens(
            requests, disable_tqdm=True, override_bs=override_bs
        )
        return results

    def _model_call(self, inps: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        logits = super()._model_call(inps, **kwargs)
        self._progress.advance(len(inps))
        return logits

    def _model_generate(
        self,
        context: torch.Tensor,
        max_length: int,
        stop: list[str],
        **kwargs: Any,  # noqa: ANN401 (whatever a task's generation_kwargs say)
    ) -> torch.Tensor:
        output = super()._model_generate(context, max_length, stop, **kwargs)
        self._progress.advance(len(context))
        return output
