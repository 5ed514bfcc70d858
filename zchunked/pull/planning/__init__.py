"""Plan each layer: what each way costs, which is taken, which ranges are requested."""
