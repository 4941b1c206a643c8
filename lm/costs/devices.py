"""Device kinds → their peak rate, from the vendors' data sheets."""

# bfloat16 matrix products with float32 sums, dense, FLOP/s per device as JAX counts devices.
_PEAKS = (
    ("NVIDIA B200", 2250e12),  # NVIDIA DGX B200 data sheet (18 PFLOP/s dense for 8)
    ("NVIDIA H200", 989e12),  # NVIDIA H200 data sheet, SXM, without sparsity
    ("NVIDIA H100 PCIe", 756e12),  # NVIDIA H100 data sheet
    ("NVIDIA H100", 989e12),  # NVIDIA H100 data sheet, SXM
    ("NVIDIA A100", 312e12),  # NVIDIA A100 data sheet
    ("NVIDIA L4", 121e12),  # NVIDIA L4 data sheet, without sparsity
    ("TPU v6", 918e12),  # Google Cloud documentation, TPU v6e
    ("TPU v5p", 459e12),  # Google Cloud documentation, TPU v5p
    ("TPU v5 lite", 197e12),  # Google Cloud documentation, TPU v5e
    ("TPU v5", 459e12),  # as JAX names v5p
    ("TPU v4", 275e12),  # Google Cloud documentation, TPU v4
)


def peak(kind: str) -> float | None:
    """Return the peak FLOP/s of a device kind as JAX names it, or None when it is not known."""
    for name, rate in _PEAKS:
        if kind.startswith(name):
            return rate
    return None
