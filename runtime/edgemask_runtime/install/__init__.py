"""Puts releases onto this device: slots, an atomic switch, a health gate, and recovery. Standard library only."""
