"""Byte-ifying: the latent model of a BLT starts from the layers of a trained Llama (docs/blt.md, section
11.6).

Embeddings, final norm and head of the Llama are left behind: they belong to its tokens.
"""

from pathlib import Path

from blt_jax.config import ConfigError
from blt_jax.families import network
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.interop import hf_weights, huggingface
from blt_jax.interop.tensor_files import Weights

# All that the layers' numbers depend on; a window is the latent model's own choice.
FIELDS = ("layers", "width", "heads", "kv_heads", "ffn", "rope_theta", "rope_scaling", "norm_eps")


def latent_from_llama(folder, config: Blt):
    """The subtree "latent" of a Blt's parameters, float32 NumPy, from a Hugging Face directory of a
    Llama.

    Raises ConfigError, in one line that names every field, where `config.latent` is another shape.
    """
    folder = Path(folder)
    llama = huggingface.read_config(folder)[0]
    if not isinstance(llama, Lm):
        raise ConfigError(
            f"init.from_llama = {str(folder)!r}: holds no llama model (model_type is not 'llama')"
        )
    wrong = [
        f"{field} is {getattr(config.latent, field)} and {getattr(llama.stack, field)} in the Llama"
        for field in FIELDS
        if getattr(config.latent, field) != getattr(llama.stack, field)
    ]
    if wrong:
        raise ConfigError(
            f"init.from_llama = {str(folder)!r}: does not fit model.latent: {'; '.join(wrong)}"
        )
    table = list(hf_weights.layers("model", (), llama.stack.layers, half_split=True))
    return hf_weights.to_params(
        Weights(folder), table, network.shapes(config)["latent"], str(folder)
    )
