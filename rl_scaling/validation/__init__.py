"""What shows that the instrument is right: calibration, published figures, an experiment, throughput and overhead."""
