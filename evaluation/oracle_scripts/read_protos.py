"""Messages through Waymo's own protos: `read_protos.py KIND.tfrecord OUTPUT.tfrecord OUTPUT.json`.

Asked by `evaluation.verify_official`. The input holds pairs of records: a message as it was, and as our schema wrote it
again. The first output holds each message as
Waymo's protos write it, the second what was found: bytes in fields that Waymo does not know, and whether the two are equal.
"""

import json
import os
import sys

import tensorflow as tf
from waymo_open_dataset.protos import motion_submission_pb2, scenario_pb2

KINDS = {
    "Scenario": scenario_pb2.Scenario,
    "MotionChallengeSubmission": motion_submission_pb2.MotionChallengeSubmission,
}


def main(source: str, target: str, findings: str) -> None:
    """Read and write all messages of `source`."""
    kind = KINDS[os.path.splitext(os.path.basename(source))[0]]
    records = list(tf.data.TFRecordDataset(source).as_numpy_iterator())
    found = []
    with tf.io.TFRecordWriter(target) as writer:
        for original_bytes, our_bytes in zip(records[::2], records[1::2], strict=True):
            original, ours = kind.FromString(original_bytes), kind.FromString(our_bytes)
            known = kind.FromString(original_bytes)
            known.DiscardUnknownFields()
            found.append({"equal": original == ours, "unknown_bytes": original.ByteSize() - known.ByteSize()})
            writer.write(original.SerializeToString(deterministic=True))
    with open(findings, "w") as handle:
        json.dump(found, handle)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
