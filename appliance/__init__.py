"""Branchline: the supervisor of an SD-WAN edge."""

__version__ = "0.1.0"
