"""What a run is: everything that `launch.train` needs."""

import dataclasses

from blt_jax.config import Init, Mesh, Optimizer, Profile, Train, later, need
from blt_jax.families import Model
from blt_jax.patching import Patching


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that `launch.train` needs. Paths are relative to the run's folder."""

    name: str
    family: str  # the label that reports group by
    size: str  # the label of the model's size within its family
    model: Model
    store: str  # folder of the document store
    index: str  # row index of the training split
    validation_index: str  # row index of the validation split
    patching: Patching | None = None  # None: the model reads bytes or tokens one by one
    tokenizer: str = ""  # tokenizer.json; "": the model reads bytes
    optimizer: Optimizer = Optimizer()
    init: Init = Init()
    train: Train = Train()
    mesh: Mesh = Mesh()
    profile: Profile = later(Profile())
    data_seed: int = 0  # order of rows
    calibration: str = later(
        ""
    )  # calibration of the patching, which drift is judged by; "": it is not
    budget: float = 0.0  # training FLOPs that the steps were solved for; 0: none

    def __post_init__(self):
        model, patching = self.model, self.patching
        what = model.describe()
        if model.patches == "given":
            need(patching is not None, "patching", None, f"{what} needs a patching rule")
        else:
            need(patching is None, "patching", patching, f"{what} has no patches to be given")
        if not model.starts_from_llama:
            llama = self.init.from_llama
            need(not llama, "init.from_llama", llama, "only a BLT has a latent model")
        if model.reads == "token":
            need(bool(self.tokenizer), "tokenizer", "", f"{what} needs a tokenizer.json")
