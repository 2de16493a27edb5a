"""MLServer's runtime around the twin; `benchmarks/serving.py` writes the settings beside it."""

# ruff: noqa: D102

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from twin import Twin


class Scorer(MLModel):
    """Open Inference tensors in, scores out."""

    async def load(self) -> bool:
        self.twin = Twin()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        columns = {one.name: one.data.root for one in payload.inputs}
        count = len(next(iter(columns.values())))
        rows = [{name: values[place] for name, values in columns.items()} for place in range(count)]
        output = ResponseOutput(name="score", shape=[count], datatype="FP64", data=self.twin.score(rows))
        return InferenceResponse(model_name=self.name, outputs=[output])
