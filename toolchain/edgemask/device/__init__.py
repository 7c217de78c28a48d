"""Devices from the host: releases onto them over ssh, what they do, how fast they are, and where they are."""
