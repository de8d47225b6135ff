"""Experiments of published papers, and how the models of the zoo are made. The library never imports from here."""
