"""The size of a network from its description alone, written independently of the builder."""

import math

from models import Architecture


def closed_form(a: Architecture, side: int) -> tuple[int, int, int]:
    """(parameters, FLOPs of convolutions and classifier, fvcore's FLOPs of norms and pooling)
    without layer scale."""
    params = flops = others = 0
    per_norm = 5 if a.norm == "layer" else 2  # fvcore's count per value, batch norm in eval mode

    def conv(
        c_in: int, c_out: int, k: int, area: int, *, groups: int = 1, norm_follows: bool
    ) -> None:
        nonlocal params, flops
        weights = k * k * c_in * c_out // groups
        has_bias = a.all_biases or a.norm == "layer" or not norm_follows
        params += weights + c_out * has_bias
        flops += weights * area

    def norm(channels: int, area: int) -> None:
        nonlocal params, others
        params += 2 * channels
        others += per_norm * channels * area

    def activation() -> None:
        nonlocal params
        params += 2 * (a.activation == "star-relu")

    def spatial(channels: int, area: int, *, norm_follows: bool) -> None:
        if a.spatial == "convolution":
            groups = channels if a.depthwise else 1
            conv(channels, channels, a.kernel_size, area, groups=groups, norm_follows=norm_follows)
            return
        nonlocal params, flops
        part = channels // 8
        for taps in (9, a.kernel_size, a.kernel_size):
            weights = taps * (part if a.depthwise else part * part)
            params += weights + part * (a.all_biases or a.norm == "layer" or not norm_follows)
            flops += weights * area

    s = side
    if a.stem == "patchify":
        s = side // a.stem_stride
        conv(3, a.width, a.stem_stride, s * s, norm_follows=True)
        norm(a.width, s * s)
    elif a.stem == "overlap":
        for number, stride in enumerate({4: (2, 2), 2: (1, 2), 1: (1, 1)}[a.stem_stride]):
            s = math.ceil(s / stride)
            conv(a.width if number else 3, a.width, 3, s * s, norm_follows=number == 1)
        norm(a.width, s * s)
    else:
        k, stride, pool = {4: (7, 2, 2), 2: (3, 1, 2), 1: (3, 1, 1)}[a.stem_stride]
        s = math.ceil(side / stride)
        conv(3, a.width, k, s * s, norm_follows=True)
        norm(a.width, s * s)
        s = math.ceil(s / pool)
    if not a.fewer_activations:
        activation()

    c = a.width
    for stage, depth in enumerate(a.depths):
        w = a.width * 2**stage
        wide = w * (a.expansion if isinstance(a.expansion, int) else a.expansion[stage])
        out = w if a.inverted_bottleneck else wide
        hidden = wide if a.inverted_bottleneck else w
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
                spatial(c, after, norm_follows=True)
                conv(c, hidden, 1, after, norm_follows=not a.fewer_norms)
                conv(hidden, out, 1, after, norm_follows=not a.fewer_norms)
            else:
                if a.fewer_norms:
                    norm(c, before)
                else:
                    norm(hidden, before), norm(hidden, after), norm(out, after)
                conv(c, hidden, 1, before, norm_follows=not a.fewer_norms)
                spatial(hidden, after, norm_follows=not a.fewer_norms)
                conv(hidden, out, 1, after, norm_follows=not a.fewer_norms)
            for _ in range(1 if a.fewer_activations else 3):
                activation()
            if a.before_last == "grn":
                params += 2 * hidden
            if a.branch_end == "se":
                squeezed = max(8, 8 * ((out // 16 + 4) // 8))
                params += 2 * out * squeezed + squeezed + out
                flops += 2 * out * squeezed
            if stride > 1 or c != out:
                conv(c, out, 1, after, norm_follows=True)
                norm(out, after)
            c, stride = out, 1

    others += c * s * s  # global average pool
    if a.head == "mlp":
        params += 3 * c * c + 3 * c + 2 * 3 * c
        flops += 3 * c * c
        others += 5 * 3 * c
        c *= 3
        activation()
    elif a.separate_downsampling:
        norm(c, 1)
    params += c * a.num_classes + a.num_classes
    flops += c * a.num_classes
    return params, flops, others
