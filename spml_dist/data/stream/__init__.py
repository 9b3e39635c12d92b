"""From packed shards to augmented batches, in an order that is planned and can be resumed."""
