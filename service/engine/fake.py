"""An engine without a model, for tests of everything above it: same contract, instant answers.

Scores are a fixed function of prompt and code, so that answers are deterministic, differ between
prompts, and obey eligibility and beam width like those of a real engine.
"""

from collections.abc import Sequence

import torch

from model_store.bundle import Bundle
from model_store.sid import EligibilityBatch
from service.engine.base import Beam, Query
from service.engine.batching import BatchingEngine
from service.engine.beams import Beams, advance, answers


class FakeEngine(BatchingEngine):
    """Beam search over made-up log-probabilities, the same with any adapter.

    `fails` makes every query raise, for tests of what the service does then.
    """

    def __init__(self, bundle: Bundle, *, fails: bool = False) -> None:
        self.trie = bundle.trie
        self.max_prompt_tokens = bundle.max_prompt_tokens
        self.adapters = bundle.adapters
        self.fails = fails
        self._sizes = [level.size for level in bundle.spec.levels]
        super().__init__(batch_tokens=8192)

    def _run(self, queries: Sequence[Query]) -> list[list[Beam]]:
        if self.fails:
            raise RuntimeError("the fake engine was told to fail")
        trie = self.trie_of(queries[0])
        widths = [query.beam_width for query in queries]
        eligible = EligibilityBatch([q.eligible for q in queries], trie.n_items)
        seeds = torch.tensor([sum(query.prompt_token_ids) % 997 for query in queries])
        beams = Beams.start(len(queries), torch.device("cpu"))
        for depth, size in enumerate(self._sizes):
            wave = torch.sin(seeds[:, None] * 1.7 + torch.arange(size) * 0.61 + depth)
            logp = wave.log_softmax(dim=1)
            beams = advance(trie, depth, beams, logp, beams.query, widths, eligible)
        return answers(trie, beams)
