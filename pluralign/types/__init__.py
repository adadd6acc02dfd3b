"""The frozen dataclasses that pass between rooms. numpy only: torch and jax never meet here.

Axis words, the same in shape annotations, einops patterns, numpyro plates and docs:
`choice` (one act of choosing), `slot` (a place in a slate), `grade` (one act of grading), `annotator`,
`item` (a prompt with a response), `prompt`, `candidate` (an item among those of its prompt), `objective`,
`feature`, `draw` (of the posterior), `voter` (whoever a rule counts: an annotator, a latent component, a group).

Masks: True means *counts*. Utilities are in logits until a `scale` says otherwise.
"""

from pluralign.types.choice import CautiousReward, Certificate, Choice, Demand, LinearReward
from pluralign.types.decision import Decision, Decisions
from pluralign.types.features import Features
from pluralign.types.judgements import FORMS, Choices, Feedback, Grades, Scale, Truth
from pluralign.types.outcome import Estimate, Evaluation, Policy, Report, Sample, Score, Welfare
from pluralign.types.posterior import CalibrationCurve, FitReport, LeaveOneOut, PredictiveCheck, RewardPosterior
from pluralign.types.utilities import Linear, Utilities

__all__ = [
    "FORMS",
    "CalibrationCurve",
    "CautiousReward",
    "Certificate",
    "Choice",
    "Choices",
    "Decision",
    "Decisions",
    "Demand",
    "Estimate",
    "Evaluation",
    "Features",
    "Feedback",
    "FitReport",
    "Grades",
    "LeaveOneOut",
    "Linear",
    "LinearReward",
    "Policy",
    "PredictiveCheck",
    "Report",
    "RewardPosterior",
    "Sample",
    "Scale",
    "Score",
    "Truth",
    "Utilities",
    "Welfare",
]
