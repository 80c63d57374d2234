"""What a model writes when nothing constrains it: SIDs that may not exist, and titles.

Both are greedy or beam searches by Hugging Face `generate`, which knows no trie.
"""

from collections.abc import Sequence

import torch
from rich.progress import track
from transformers import AutoModelForCausalLM

from model_store.build.evaluate import Case
from model_store.bundle import Bundle

BEAMS = 10
LONGEST_TITLE = 96
"""Tokens at most that a title may take."""


class FreeGeneration:
    """The model of a bundle, asked without the trie."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(bundle.model_path)
        self._model = model.to(self._device).eval()

    def invalid_sids(self, cases: Sequence[Case], max_history: int) -> dict[str, float]:
        """Share of texts that are the SID of no item: among the first beams, and among all."""
        known, spec = set(self._bundle.sids), self._bundle.spec
        closing = len(self._bundle.tokenizer.encode(spec.closing).ids)
        invalid: list[list[bool]] = []
        for case in track(cases, "writing freely"):
            sids = [self._bundle.sids[row] for row in case.user.items[-max_history:]]
            prompt = self._bundle.manifest.prompt.render(sids, case.user.profile, case.user.scene)
            texts = self._write(prompt + spec.opening, spec.depth + closing + 1, BEAMS)
            invalid.append([spec.opening + text not in known for text in texts])
        return {
            "first": sum(beams[0] for beams in invalid) / len(invalid),
            "all": sum(map(sum, invalid)) / sum(map(len, invalid)),
        }

    def right_titles(self, rows: Sequence[int]) -> float:
        """Share of catalogue rows whose SID is answered with exactly their title."""
        tasks, right = self._bundle.manifest.prompt.tasks, 0
        assert tasks
        for row in track(rows, "writing titles"):
            prompt = tasks.ask_title(self._bundle.sids[row])
            right += self._write(prompt, LONGEST_TITLE, 1) == [self._bundle.catalogue.titles[row]]
        return right / len(rows)

    @torch.inference_mode()
    def _write(self, prompt: str, tokens: int, beams: int) -> list[str]:
        ids = torch.tensor([self._bundle.tokenizer.encode(prompt).ids], device=self._device)
        end = self._model.generation_config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        written = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            pad_token_id=ends[0],
        )[:, ids.shape[1] :]
        return [self._text(row, ends) for row in written.tolist()]

    def _text(self, ids: Sequence[int], ends: Sequence[int]) -> str:
        stop = next((i for i, token in enumerate(ids) if token in ends), len(ids))
        text: str = self._bundle.tokenizer.decode(ids[:stop], skip_special_tokens=False)
        return text
