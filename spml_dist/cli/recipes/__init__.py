"""The recipes of `spml-dist pack`: the options and the help of each."""
