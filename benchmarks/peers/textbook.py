"""The textbook's way of working, written afresh: every module by hand, every text padded to the longest training text,
the whole trunk in every step, an output head of its own, prediction one text at a time, a cache only if asked for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from work import Work, padded

LOOKED_AT = 5  # batches of an evaluation on the way
EVERY = 50  # steps between them


class Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return self.scale * centred / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-5) + self.shift


class Attention(nn.Module):
    def __init__(self, width: int, n_head: int, context: int) -> None:
        super().__init__()
        self.n_head, self.past = n_head, None
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.register_buffer("later", torch.triu(torch.ones(context, context), diagonal=1).bool())

    def forward(self, x: Tensor, keep: bool) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        if keep:
            if self.past is not None:
                k, v = (torch.cat(pair, dim=2) for pair in zip(self.past, (k, v), strict=True))
            self.past = (k, v)
        scores = q @ k.transpose(2, 3)
        scores = scores.masked_fill(self.later[k.size(2) - q.size(2) : k.size(2), : k.size(2)], -torch.inf)
        mixed = torch.softmax(scores / k.size(-1) ** 0.5, dim=-1) @ v
        return self.out(mixed.transpose(1, 2).contiguous().flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, n_head: int, context: int) -> None:
        super().__init__()
        self.norm_1, self.attention = Norm(width), Attention(width, n_head, context)
        self.norm_2, self.up, self.down = Norm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, keep: bool) -> Tensor:
        x = x + self.attention(self.norm_1(x), keep)
        up = self.up(self.norm_2(x))
        gelu = 0.5 * up * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (up + 0.044715 * up**3)))
        return x + self.down(gelu)


class Model(nn.Module):
    def __init__(self, shape: dict[str, int]) -> None:
        super().__init__()
        width, context = shape["n_embd"], shape["context_length"]
        self.tokens, self.positions = nn.Embedding(shape["vocab_size"], width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, shape["n_head"], context) for _ in range(shape["n_layer"]))
        self.norm, self.head = Norm(width), nn.Linear(width, shape["vocab_size"], bias=False)

    def forward(self, ids: Tensor, begin: int = 0, keep: bool = False) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(begin, begin + ids.size(1)))
        for block in self.blocks:
            x = block(x, keep)
        return self.head(self.norm(x))


def classifier(work: Work) -> Model:
    model = Model(work.shape).requires_grad_(False)
    model.head = nn.Linear(work.shape["n_embd"], 2)
    model.blocks[-1].requires_grad_(True)
    model.norm.requires_grad_(True)
    return model


def class_logits(model: Model, work: Work, ids: Sequence[list[int]]) -> Tensor:
    return model(torch.tensor(padded(list(ids), work.pad, width=work.longest)[0]))[:, -1]


def spam(work: Work, precision: str) -> dict[str, float]:
    """Trains, looks at five batches of two parts now and then, and at everything in the end."""
    torch.manual_seed(0)
    model, train = classifier(work), work.spam["train"]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-5, weight_decay=0.1)
    step = 0
    for epoch in range(work.epochs):
        for rows in work.batches([len(ids) for ids, _ in train], epoch):
            optimizer.zero_grad()
            class_loss(model, work, [train[row] for row in rows]).backward()
            optimizer.step()
            if step % EVERY == 0:
                look(model, work, LOOKED_AT)
            step += 1
        look(model, work, LOOKED_AT)
    begun = time.perf_counter()
    look(model, work, None, parts=("train", "validation", "test"))
    return {"steps": step, "last_evaluation_s": time.perf_counter() - begun}


def class_loss(model: Model, work: Work, batch: Sequence[tuple[list[int], int]]) -> Tensor:
    labels = torch.tensor([label for _, label in batch])
    return F.cross_entropy(class_logits(model, work, [ids for ids, _ in batch]), labels)


@torch.no_grad()
def look(model: Model, work: Work, count: int | None, parts: Sequence[str] = ("train", "validation")) -> None:
    for part in parts:
        texts, size = work.spam[part], work.batch_size
        for begin in range(0, len(texts), size)[:count]:
            class_loss(model, work, texts[begin : begin + size]).item()


def instructions(work: Work, precision: str) -> dict[str, float]:
    """One epoch with all parameters."""
    torch.manual_seed(0)
    model = Model(work.shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.1)
    begun = time.perf_counter()
    for rows in work.batches([len(ids) for ids in work.records], seed=0):
        ids, real = (torch.tensor(part) for part in padded([work.records[row] for row in rows], work.pad))
        targets = ids[:, 1:].masked_fill(real[:, 1:] == 0, -100)
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"seconds": time.perf_counter() - begun, "done": work.learned}


@torch.no_grad()
def classify(work: Work, precision: str) -> dict[str, float]:
    """One text after the other."""
    model = classifier(work).eval()
    begun = time.perf_counter()
    for ids in work.ids:
        class_logits(model, work, [ids]).argmax().item()
    return {"seconds": time.perf_counter() - begun, "done": len(work.ids)}


@torch.no_grad()
def generate(work: Work, precision: str, *, cache: bool = True) -> dict[str, float]:
    """Greedy; with a cache that grows by concatenation, or the whole text again for every token."""
    model, prompt = Model(work.shape).eval(), work.prompts[0]
    begun = time.perf_counter()
    ids = torch.tensor([prompt])
    new = model(ids, keep=cache)[:, -1:].argmax(-1)
    for _ in range(work.new_tokens - 1):
        ids = torch.cat((ids, new), dim=1)
        logits = model(new, ids.size(1) - 1, keep=True) if cache else model(ids)
        new = logits[:, -1:].argmax(-1)
    return {"seconds": time.perf_counter() - begun, "done": work.new_tokens}
