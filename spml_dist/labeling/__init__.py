"""From a trained model to labels: predictions, neighbour votes, evaluation."""
