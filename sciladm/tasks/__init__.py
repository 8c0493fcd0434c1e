"""What a run is used for: each task builds a question and shapes the answer."""
