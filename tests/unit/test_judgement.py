"""A judgement survives being written down."""

import json

from lifecycle.findings import Direction, judge
from lifecycle.gates import Decision, State
from lifecycle.judgement import Judgement


def test_a_judgement_is_read_back_equal():
    finding = judge("roc_auc", 0.7, 0.62, Direction.AT_LEAST, window="hold-out", count=100, interval=(0.68, 0.72))
    missing = judge("roc_auc", None, 0.62, Direction.AT_LEAST, window="hold-out", count=3, min_count=10)
    judged = Judgement((finding, missing), Decision(State.REJECTED, ("too few rows",), ("roc_auc: sara",)))
    assert Judgement.from_dict(json.loads(json.dumps(judged.to_dict()))) == judged
