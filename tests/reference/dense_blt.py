"""The whole BLT in float64 NumPy with dense masks and loops: slow, plain, and written from the
description.

It shares no code with the product but the layout of the parameter tree. Released conventions only
(`RELEASED`).
"""

import numpy as np

PRIMES = (1000000007, 5915587277, 1500450271, 3267000013, 5754853343, 4093082899, 9576890767)
EOS = 2


def _norm(x, scale, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * scale


def _attend(q_LxHxC, k_SxGxC, v_SxGxC, mask_LxS):
    out = np.zeros_like(q_LxHxC)
    heads, kv_heads = q_LxHxC.shape[1], k_SxGxC.shape[1]
    for h in range(heads):
        g = h * kv_heads // heads
        scores = q_LxHxC[:, h] @ k_SxGxC[:, g].T / np.sqrt(q_LxHxC.shape[-1])
        scores = np.where(mask_LxS, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, h] = weights / weights.sum(-1, keepdims=True) @ v_SxGxC[:, g]
    return out


def _rotate(x_LxHxC, theta):
    out = np.empty_like(x_LxHxC)
    channels = x_LxHxC.shape[-1]
    for i in range(channels // 2):
        angle = np.arange(len(x_LxHxC))[:, None] * theta ** (-2 * i / channels)
        a, b = x_LxHxC[..., 2 * i], x_LxHxC[..., 2 * i + 1]
        out[..., 2 * i], out[..., 2 * i + 1] = (
            a * np.cos(angle) - b * np.sin(angle),
            a * np.sin(angle) + b * np.cos(angle),
        )
    return out


def _heads(x, kernel):
    return np.einsum("ld,dhc->lhc", x, kernel)


def _block(p, x, mask, stack):
    y = _norm(x, p["attention_norm"]["scale"], stack.norm_eps)
    q, k = (_rotate(_heads(y, p[name]["kernel"]), stack.rope_theta) for name in "qk")
    attended = _attend(q, k, _heads(y, p["v"]["kernel"]), mask)
    x = x + np.einsum("lhc,hcd->ld", attended, p["o"]["kernel"])
    y = _norm(x, p["ffn_norm"]["scale"], stack.norm_eps)
    gate, up = y @ p["gate"]["kernel"], y @ p["up"]["kernel"]
    return x + (gate / (1 + np.exp(-gate)) * up) @ p["down"]["kernel"]


def _cross(p, x, context, mask, eps):
    y, z = _norm(x, p["query_norm"]["scale"], eps), _norm(context, p["context_norm"]["scale"], eps)
    attended = _attend(
        _heads(y, p["q"]["kernel"]), _heads(z, p["k"]["kernel"]), _heads(z, p["v"]["kernel"]), mask
    )
    return 2 * x + np.einsum("lhc,hcd->ld", attended, p["o"]["kernel"])


def _layer(tree, i):
    return {k: _layer(v, i) for k, v in tree.items()} if isinstance(tree, dict) else tree[i]


def _mask(document_L, window):
    behind = np.arange(len(document_L))[:, None] - np.arange(len(document_L))
    return (
        (behind >= 0) & (behind < (window or len(document_L))) & (document_L[:, None] == document_L)
    )


def _hashed(ids, c, tables):
    total = np.zeros((len(ids), tables.shape[-1]))
    for f in range(c.hash_functions):
        for s, n in enumerate(c.hash_sizes):
            for at in range(len(ids)):
                gram = [ids[at - n + 1 + j] if at - n + 1 + j >= 0 else 0 for j in range(n)]
                value = sum(int(x) * PRIMES[f] ** j for j, x in enumerate(gram)) % 2**64
                value -= 2**64 if value >= 2**63 else 0
                total[at] += tables[f * len(c.hash_sizes) + s, value % c.hash_rows]
    return total


def logits(params, c, ids, lengths):
    """float64 [L, 260] of one row of ids whose patch lengths count the next byte (no zeros)."""
    p = _float64(params)
    starts = np.cumsum(lengths) - lengths
    patch = np.array([np.flatnonzero(starts <= i)[-1] for i in range(len(ids))])
    read = np.array([np.flatnonzero(starts <= i + 1)[-1] - 1 for i in range(len(ids))])
    patches, K, E = len(lengths), c.slots, c.encoder.width
    document = np.array([np.sum(ids[:i] == EOS) for i in range(len(ids))])
    of_patch = np.array([sum(EOS in ids[patch == q] for q in range(j)) for j in range(patches)])
    local = _mask(document, c.encoder.window)

    h = p["encoder"]["embedding"][ids] + _hashed(ids, c, p["encoder"]["hash"]["tables"])
    slots, own = None, np.repeat(np.arange(patches), K)[:, None] == patch
    unread = ~own.any(1)  # a patch that holds only the next byte: anything finite will do
    own[unread] = True
    for i in range(c.encoder.layers):
        every = c.encoder_cross == "all"
        block = p["encoder"][f"layer_{i}"] if every else _layer(p["encoder"]["stack"]["layers"], i)
        h = _block(block, h, local, c.encoder)
        if every or i == c.encoder.layers - 1:
            if slots is None:
                held = [
                    h[patch == j].max(0) if (patch == j).any() else np.zeros(E)
                    for j in range(patches)
                ]
                slots = (np.array(held) @ p["encoder"]["query"]["kernel"]).reshape(patches * K, E)
            cross = p["encoder"][f"cross_{i}"] if every else p["encoder"]["cross"]
            slots = _cross(cross, slots, h, own, c.encoder.norm_eps)
    x = slots.reshape(patches, K * E)
    if "to_latent" in p:
        x = x @ p["to_latent"]["kernel"]
    for i in range(c.latent.layers):
        x = _block(_layer(p["latent"]["layers"], i), x, _mask(of_patch, c.latent.window), c.latent)
    slots = (x @ p["decoder"]["from_latent"]["kernel"]).reshape(patches * K, E)
    reads = read[:, None] == np.repeat(np.arange(patches), K)
    for i in range(c.decoder.layers):
        every = c.decoder_cross == "all"
        tree = (
            _layer(p["decoder"]["layers"], i)
            if every
            else {"block": _layer(p["decoder"]["stack"]["layers"], i)}
        )
        if every or i == 0:
            h = _cross(
                tree["cross"] if every else p["decoder"]["cross"],
                h,
                slots,
                reads,
                c.decoder.norm_eps,
            )
        h = _block(tree["block"], h, local, c.decoder)
    return (
        _norm(h, p["decoder"]["norm"]["scale"], c.decoder.norm_eps) @ p["decoder"]["head"]["kernel"]
    )


def _float64(tree):
    return (
        {k: _float64(v) for k, v in tree.items()}
        if isinstance(tree, dict)
        else np.asarray(tree, np.float64)
    )
