"""The twin as every peer runs it: the same ONNX Runtime, one thread, columns made from rows as quickly as plain Python can."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import onnxruntime


class Twin:
    """The model in the file that TWIN names."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["TWIN"], options, providers=["CPUExecutionProvider"])
        self.texts = {one.name: one.type == "tensor(string)" for one in self.session.get_inputs()}

    def score(self, rows: list[dict[str, Any]]) -> list[float]:
        """Probability for each row; null and NaN are missing values."""
        columns = {}
        for name, text in self.texts.items():
            values = [row[name] for row in rows]
            if text:
                columns[name] = np.array([value if isinstance(value, str) else "" for value in values], dtype=object)
            else:
                columns[name] = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
        return self.session.run(["score"], columns)[0].reshape(-1).tolist()
