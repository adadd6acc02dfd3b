"""Composition of likelihoods and rater noise; the likelihoods themselves are in test_likelihood."""
