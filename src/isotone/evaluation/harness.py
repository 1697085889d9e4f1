"""A loaded model as lm-eval's own `hf` model: the same code, with a batch that fits and a bar."""

from __future__ import annotations

from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from isotone.engine.progress import Progress, Silent
from isotone.evaluation.scoring import batch_size

Encoded = tuple[tuple[str, str], list[int], list[int]]

_MAX_BATCH = 8  # more gains nothing on a CPU, and answers are short
_COPIES = 2  # lm-eval makes a log-softmax of the whole batch


class HarnessModel(HFLM):  # type: ignore[misc]
    """lm-eval's HFLM over a model that is loaded already."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=1)
        self._progress = progress or Silent()

    def get_model_info(self) -> dict[str, Any]:
        """Nothing: lm-eval would look for the model on the hub."""
        return {}

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Log-likelihoods of continuations; lm-eval's bar gives way to ours."""
        results: list[tuple[float, bool]] = super().loglikelihood(
            requests, disable_tqdm=disable_tqdm
        )
        return results

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """Log-likelihoods of whole texts."""
        self._progress.begin("scoring texts", 0, unit="windows")
        results: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        return results

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Continuations up to a stop."""
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
