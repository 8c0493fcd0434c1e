"""Networks on tensors (batch, channel, *space); each axis ends as the grid says."""
