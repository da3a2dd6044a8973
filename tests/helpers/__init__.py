"""What several tests share: models, traces, densities of states, runs of engines."""
