"""Shapes of the BLT paper (arXiv 2412.09871), Table 10: numbers that presets of families share."""

# size: latent model's (layers, heads, width); a token LM of the same shape is the paper's twin
LATENT = {
    "400m": (24, 10, 1280),
    "1b": (25, 16, 2048),
    "2b": (26, 20, 2560),
    "4b": (36, 24, 3072),
    "8b": (32, 32, 4096),
}
# size: local models' (heads, width), decoder layers, slots per patch
LOCAL = {
    "400m": (12, 768, 7, 2),
    "1b": (16, 1024, 9, 2),
    "2b": (16, 1024, 9, 3),
    "4b": (16, 1024, 9, 3),
    "8b": (20, 1280, 6, 4),
}
WINDOW = 512  # of local attention and of the entropy model
TOKEN_VOCAB = {"llama3": 128_000, "llama2": 32_000}
