"""The page on which a collection is asked: a small web application over an index."""
