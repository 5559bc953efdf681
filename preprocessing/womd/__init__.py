"""WOMD's own formats: TFRecord, protos, range images."""
