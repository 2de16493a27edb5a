"""Sample weights that the model file's mitigation asks for."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lifecycle.mitigation import reweighing
from lifecycle.spec import ModelSpec


def sample_weights(spec: ModelSpec, frame: pd.DataFrame) -> NDArray[np.float64] | None:
    """Weights of all rows, shape (rows,); None where no mitigation is asked for."""
    mitigation = spec.training.mitigation
    if mitigation is None:
        return None
    column = next(one.column for one in spec.sensitive if one.name == mitigation.attribute)
    return reweighing(frame[column].to_numpy(), frame[spec.label.column].to_numpy())
