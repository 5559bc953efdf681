"""One branch of a decoder layer: queries attend to each other, then to agents or to polylines."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from limtr.attention import masked_attention, split_heads
from limtr.dropout import Dropout


class OutProjection(nn.Module):
    """The output projection of an attention, starting without bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out_proj = nn.Linear(dim, dim)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, D) to (B, L, D)."""
        out: torch.Tensor = self.out_proj(x)
        return out


class DecoderBranch(nn.Module):
    """Self-attention of the queries, then cross-attention whose query and key carry a position beside the content.

    Source: Meng et al., "Conditional DETR", ICCV 2021, and Liu et al., "DAB-DETR", ICLR 2022, as MTR uses them.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float, path: str, *, is_first: bool) -> None:
        super().__init__()
        self.num_heads, self.path = num_heads, path
        self.sa_qcontent_proj = nn.Linear(dim, dim)
        self.sa_qpos_proj = nn.Linear(dim, dim)
        self.sa_kcontent_proj = nn.Linear(dim, dim)
        self.sa_kpos_proj = nn.Linear(dim, dim)
        self.sa_v_proj = nn.Linear(dim, dim)
        self.self_attn = OutProjection(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.ca_qcontent_proj = nn.Linear(dim, dim)
        # Only the first layer adds the query's static embedding to its content.
        self.ca_qpos_proj = nn.Linear(dim, dim) if is_first else None
        self.ca_kcontent_proj = nn.Linear(dim, dim)
        self.ca_kpos_proj = nn.Linear(dim, dim)
        self.ca_v_proj = nn.Linear(dim, dim)
        self.ca_qpos_sine_proj = nn.Linear(dim, dim)
        self.cross_attn = OutProjection(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, 4 * dim)
        self.linear2 = nn.Linear(4 * dim, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        content: torch.Tensor,
        query_embedding: torch.Tensor,
        query_code: torch.Tensor,
        memory: torch.Tensor,
        memory_code: torch.Tensor,
        allowed: torch.Tensor,
        max_keys: int,
    ) -> torch.Tensor:
        """Update the queries.

        Args:
            content: (C, Q, D).
            query_embedding: (C, Q, D) static embedding of the intention points.
            query_code: (C, Q, D) sine code of where each query now looks.
            memory: (C, L, D) what is attended to.
            memory_code: (C, L, D) sine code of its positions.
            allowed: (C, Q or 1, L) bool.
            max_keys: no query is allowed more.

        Returns:
            (C, Q, D).
        """
        dropout = self.dropout.p if self.training else 0.0
        every = torch.ones((content.shape[0], 1, content.shape[1]), dtype=torch.bool, device=content.device)
        mixed = masked_attention(
            self.sa_qcontent_proj(content) + self.sa_qpos_proj(query_embedding),
            self.sa_kcontent_proj(content) + self.sa_kpos_proj(query_embedding),
            self.sa_v_proj(content),
            every, num_heads=self.num_heads, dropout=dropout,
        )  # fmt: skip
        content = self.norm1(content + self.dropout(self.self_attn(mixed)))

        query, key = self.ca_qcontent_proj(content), self.ca_kcontent_proj(memory)
        key_position = self.ca_kpos_proj(memory_code)
        if self.ca_qpos_proj is not None:
            query, key = query + self.ca_qpos_proj(query_embedding), key + key_position
        mixed = masked_attention(
            self._beside(query, self.ca_qpos_sine_proj(query_code)),
            self._beside(key, key_position),
            self.ca_v_proj(memory),
            allowed, num_heads=self.num_heads, dropout=dropout, path=self.path, max_keys=max_keys,
        )  # fmt: skip
        content = self.norm2(content + self.dropout(self.cross_attn(mixed)))
        hidden = self.dropout(functional.relu(self.linear1(content)))
        out: torch.Tensor = self.norm3(content + self.dropout(self.linear2(hidden)))
        return out

    def _beside(self, content: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Per head, the content's channels and then the position's: two (C, L, D) to (C, L, 2 D)."""
        parts = [split_heads(x, self.num_heads) for x in (content, position)]
        return torch.cat(parts, dim=-1).flatten(start_dim=-2)
