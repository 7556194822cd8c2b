"""Monocular geometry estimators beside the shipped one: pretrained depth models, and heads on timm backbones."""
