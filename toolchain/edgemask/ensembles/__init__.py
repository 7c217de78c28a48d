"""Ensembles: steps around the model that ask it several times and add what it says on the whole."""
