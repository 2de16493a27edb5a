"""Save the twin as an MLflow pyfunc model: ``python mlflow_model.py FOLDER``; MLflow's own server serves it then."""

# ruff: noqa: ARG002, D102

import sys

import mlflow
from twin import Twin


class Scorer(mlflow.pyfunc.PythonModel):
    """Frames in, scores out."""

    def load_context(self, context):
        self.twin = Twin()

    def predict(self, context, model_input, params=None):
        return self.twin.score(model_input.to_dict("records"))


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=Scorer(), code_paths=["twin.py"])
