"""A trained network at work: whole images, read-outs, evaluation."""
