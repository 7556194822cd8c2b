"""The optimization of a stage: rendering, loss, optimizer and checks of one training step."""
