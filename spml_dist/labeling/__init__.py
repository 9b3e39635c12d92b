"""From weak labels and a trained network to labels of every pixel: labelers, and packs that they label."""
