"""One loop, its optimiser and the files it leaves behind."""
