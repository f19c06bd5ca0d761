"""Throughput measured against what others reach and against what the parts allow."""
