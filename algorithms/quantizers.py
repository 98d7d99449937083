"""Weight quantizers (ternary, uniform k-bit) and their codes packed to the true width."""

from dataclasses import dataclass

import torch

from subpc.errors import ConfigError

MIN_BITS, MAX_BITS = 2, 8
# TWN, equation 6: the threshold as a share of the mean magnitude.
TERNARY_SHARE = 0.7


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """Integer codes (uint8, the weight's shape), their width, and one scale a layer (1,) or an output channel (c,)."""

    codes: torch.Tensor
    scale: torch.Tensor
    bits: int
    ternary: bool = False

    def dequantize(self) -> torch.Tensor:
        """The float32 weight: scale * (code - 1) for ternary, scale * (2 code / (2^bits - 1) - 1) for uniform codes."""
        values = self.codes.double()
        values = values - 1 if self.ternary else 2 * values / (2**self.bits - 1) - 1
        return (values * self.scale.double().view(-1, *[1] * (values.dim() - 1))).float()

    @property
    def nbytes(self) -> int:
        """Bytes of packed codes and scales."""
        return (self.codes.numel() * self.bits + 7) // 8 + 4 * self.scale.numel()


def check_bits(bits: int, name: str = "bits") -> None:
    """ConfigError unless `bits` is a width that the quantizers have."""
    if not isinstance(bits, int) or isinstance(bits, bool) or not MIN_BITS <= bits <= MAX_BITS:
        raise ConfigError(f"{name} is {bits!r}; accepted: whole numbers from {MIN_BITS} to {MAX_BITS}.")


def quantize_ternary(weight: torch.Tensor, *, per_channel: bool = False) -> Quantized:
    """Ternary weight networks: zero below 0.7 mean |w|, else sign(w) times the mean magnitude of what is kept."""
    rows = weight.detach().double().flatten(1) if per_channel else weight.detach().double().reshape(1, -1)
    size = rows.abs()
    kept = size > TERNARY_SHARE * size.mean(1, keepdim=True)
    scale = (size * kept).sum(1) / kept.sum(1).clamp(min=1)
    codes = (rows.sign() * kept + 1).to(torch.uint8).view(weight.shape)
    return Quantized(codes=codes, scale=scale.float(), bits=2, ternary=True)


def quantize_uniform(weight: torch.Tensor, bits: int, *, per_channel: bool = False) -> Quantized:
    """2^bits levels between -max|w| and max|w|, none of them zero (UDFC and DF-MPC; the scale, left out there, is restored)."""
    check_bits(bits)
    rows = weight.detach().double().flatten(1) if per_channel else weight.detach().double().reshape(1, -1)
    scale = rows.abs().amax(1)
    unit = rows / (2 * scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]) + 0.5
    codes = ((2**bits - 1) * unit).round().to(torch.uint8).view(weight.shape)
    return Quantized(codes=codes, scale=scale.float(), bits=bits)


def pack_codes(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes below 2^bits as one stream of bits, lowest first, in ceil(n bits / 8) bytes (uint8)."""
    shifts = torch.arange(bits, dtype=torch.uint8)
    stream = ((codes.reshape(-1, 1) >> shifts) & 1).reshape(-1)
    stream = torch.nn.functional.pad(stream, (0, -stream.numel() % 8)).view(-1, 8)
    weights = torch.tensor([1 << i for i in range(8)], dtype=torch.int32)
    return (stream.int() * weights).sum(1).to(torch.uint8)


def unpack_codes(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The first `count` codes of a packed stream (uint8, one dimension)."""
    stream = ((packed.view(-1, 1) >> torch.arange(8, dtype=torch.uint8)) & 1).reshape(-1)[: count * bits].view(count, bits)
    weights = torch.tensor([1 << i for i in range(bits)], dtype=torch.int32)
    return (stream.int() * weights).sum(1).to(torch.uint8)
