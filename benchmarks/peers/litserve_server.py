"""LitServe around the twin: ``python litserve_server.py PORT BATCH``."""

# ruff: noqa: ARG002, D102

import sys

import litserve
from twin import Twin


class Scorer(litserve.LitAPI):
    """One row a request, what arrives within 2 ms scored together."""

    def setup(self, device):
        self.twin = Twin()

    def decode_request(self, request):
        return request

    def predict(self, rows):
        return self.twin.score(rows) if isinstance(rows, list) else self.twin.score([rows])[0]

    def encode_response(self, score):
        return {"score": score}


if __name__ == "__main__":
    port, batch = int(sys.argv[1]), int(sys.argv[2])
    api = Scorer(max_batch_size=batch, batch_timeout=0.002 if batch > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning", access_log=False)
