"""Self-attention between the places of a feature map."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from liquid_ode.models.blocks import zeroed

HEAD = 32  # channels of a head


class SelfAttention(nn.Module):
    """x + out(softmax(q k^T / sqrt(d)) v), q, k and v linear in GroupNorm(x), over all places.

    Heads of 32 channels (or one head of all, where there are fewer). Starts as the identity.

    Reference: Vaswani et al. 2017, eq. 1; Dhariwal & Nichol 2021, section 3.

    Args:
        channels: of the map ``(B, channels, H, W)``, a multiple of 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD) if channels % HEAD == 0 else 1
        self.norm = nn.GroupNorm(8, channels)
        self.inputs = nn.Linear(channels, 3 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        places = self.norm(x).flatten(2).transpose(1, 2)  # (B, H W, C)
        parts = self.inputs(places).unflatten(2, (3, self.heads, -1))  # (B, H W, 3, heads, d)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind()  # (B, heads, H W, d) each
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, H W, C)
        return x + self.out(seen).transpose(1, 2).view(batch, channels, height, width)
