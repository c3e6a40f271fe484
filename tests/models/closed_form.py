"""Size of a network from its description alone, written without a look at the builder."""

import math

from models import Architecture


def closed_form(a: Architecture, side: int) -> tuple[int, int, int]:
    """(parameters, FLOPs of convolutions and classifier, fvcore's FLOPs of norms and pooling) without layer scale."""
    params = flops = others = 0
    per_norm = 5 if a.norm == "layer" else 2  # fvcore: 5 a value for layer norm, 2 for batch norm in eval mode

    def conv(c_in: int, c_out: int, k: int, area: int, *, groups: int = 1, norm_follows: bool) -> None:
        nonlocal params, flops
        weights = k * k * c_in * c_out // groups
        has_bias = a.norm == "layer" or not norm_follows
        params += weights + c_out * has_bias
        flops += weights * area

    def norm(channels: int, area: int) -> None:
        nonlocal params, others
        params += 2 * channels
        others += per_norm * channels * area

    if a.stem == "patchify":
        s = side // a.stem_stride
        conv(3, a.width, a.stem_stride, s * s, norm_follows=True)
        norm(a.width, s * s)
    else:
        k, stride, pool = {4: (7, 2, 2), 2: (3, 1, 2), 1: (3, 1, 1)}[a.stem_stride]
        s = math.ceil(side / stride)
        conv(3, a.width, k, s * s, norm_follows=True)
        norm(a.width, s * s)
        s = math.ceil(s / pool)

    c = a.width
    for stage, depth in enumerate(a.depths):
        w = a.width * 2**stage
        out = w if a.inverted_bottleneck else 4 * w
        hidden = 4 * w if a.inverted_bottleneck else w
        stride = 2 if stage else 1
        if a.separate_downsampling and stage:
            norm(c, s * s)
            s //= 2
            params += 4 * c * out + out
            flops += 4 * c * out * s * s
            c, stride = out, 1
        for _ in range(depth):
            before, s = s * s, math.ceil(s / stride)
            after = s * s
            if a.depthwise_first:
                if a.fewer_norms:
                    norm(c, after)
                else:
                    norm(c, after), norm(hidden, after), norm(out, after)
                conv(c, c, a.kernel_size, after, groups=c if a.depthwise else 1, norm_follows=True)
                conv(c, hidden, 1, after, norm_follows=not a.fewer_norms)
                conv(hidden, out, 1, after, norm_follows=not a.fewer_norms)
            else:
                if a.fewer_norms:
                    norm(c, before)
                else:
                    norm(hidden, before), norm(hidden, after), norm(out, after)
                conv(c, hidden, 1, before, norm_follows=not a.fewer_norms)
                groups = hidden if a.depthwise else 1
                conv(hidden, hidden, a.kernel_size, after, groups=groups, norm_follows=not a.fewer_norms)
                conv(hidden, out, 1, after, norm_follows=not a.fewer_norms)
            if stride > 1 or c != out:
                conv(c, out, 1, after, norm_follows=True)
                norm(out, after)
            c, stride = out, 1

    others += c * s * s  # global average pool
    if a.separate_downsampling:
        norm(c, 1)
    params += c * a.num_classes + a.num_classes
    flops += c * a.num_classes
    return params, flops, others
