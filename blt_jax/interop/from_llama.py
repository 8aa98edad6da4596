"""Byte-ifying: the latent model of a BLT starts from the layers of a trained Llama (docs/blt.md,
section 11.6).

Embeddings, final norm and head of the Llama are left behind: they belong to its tokens.
"""

from pathlib import Path
from typing import Any

from blt_jax.config import ConfigError
from blt_jax.families import Model, hf_tensors, network
from blt_jax.interop import huggingface
from blt_jax.interop.tensor_files import Weights

# All that the layers' numbers depend on; a window is the latent model's own choice.
FIELDS = ("layers", "width", "heads", "kv_heads", "ffn", "rope_theta", "rope_scaling", "norm_eps")


def latent_from_llama(folder: str | Path, config: Model) -> dict[str, Any]:
    """The parameters of `config`'s backbone, float32 NumPy, from a Hugging Face directory of a
    Llama.

    Raises ConfigError, in one line that names every field, where the backbone is another shape.
    """
    folder = Path(folder)
    llama = huggingface.read_config(folder)[0]
    if huggingface.load_settings(folder / "config.json")["model_type"] != "llama":
        raise ConfigError(
            f"init.from_llama = {str(folder)!r}: holds no llama model (model_type is not 'llama')"
        )
    ours, theirs = (getattr(model, model.backbone) for model in (config, llama))
    wrong = [
        f"{field} is {getattr(ours, field)} and {getattr(theirs, field)} in the Llama"
        for field in FIELDS
        if getattr(ours, field) != getattr(theirs, field)
    ]
    if wrong:
        raise ConfigError(
            f"init.from_llama = {str(folder)!r}: does not fit model.{config.backbone}: "
            f"{'; '.join(wrong)}"
        )
    table = hf_tensors.layers("model", (), theirs.layers, half_split=True)
    shapes = network.shapes(config)[config.backbone]
    return hf_tensors.to_params(Weights(folder), table, shapes, str(folder))
