"""An engine without a model, for tests of everything above it: same contract, instant answers.

Scores are a fixed function of prompt and code, so that answers are deterministic, differ between
prompts, and obey eligibility and beam width like those of a real engine.
"""

import time
from collections.abc import Iterator, Sequence

import torch

from model_store.bundle import Bundle
from model_store.sid import EligibilityBatch
from service.engine.base import Beam, Query
from service.engine.batching import BatchingEngine
from service.engine.beams import Beams, advance, answers
from service.engine.trace import Tracer


class FakeEngine(BatchingEngine):
    """Beam search over made-up log-probabilities, the same with any adapter.

    For tests of what the service does then, `fails` makes every query raise, and every batch
    takes `delay_ms` longer than it would.
    """

    def __init__(self, bundle: Bundle, *, fails: bool = False, delay_ms: float = 0) -> None:
        self.trie = bundle.trie
        self.max_prompt_tokens = bundle.max_prompt_tokens
        self.max_length = bundle.max_length
        self.adapters = bundle.adapters
        self.fails = fails
        self.delay_ms = delay_ms
        self._sizes = [level.size for level in bundle.spec.levels]
        super().__init__(batch_tokens=8192)

    def _run(self, queries: Sequence[Query]) -> list[list[Beam]]:
        if self.fails:
            raise RuntimeError("the fake engine was told to fail")
        time.sleep(self.delay_ms / 1000)
        trie = self.trie_of(queries[0])
        widths = [query.beam_width for query in queries]
        eligible = EligibilityBatch([q.eligible for q in queries], trie.n_items)
        seeds = torch.tensor([sum(query.prompt_token_ids) % 997 for query in queries])
        tracer = Tracer(queries)
        beams = Beams.start(len(queries), torch.device("cpu"))
        for depth, size in enumerate(self._sizes):
            wave = torch.sin(seeds[:, None] * 1.7 + torch.arange(size) * 0.61 + depth)
            logp = wave.log_softmax(dim=1)
            row = beams.query
            beams = advance(trie, depth, beams, logp, row, widths, eligible)
            tracer.record(trie, depth, beams, logp, row)
        return answers(trie, beams, explain=any(query.explain for query in queries))

    def _write(self, prompt: Sequence[int], max_tokens: int) -> Iterator[int]:
        """The prompt again."""
        if self.fails:
            raise RuntimeError("the fake engine was told to fail")
        yield from prompt
