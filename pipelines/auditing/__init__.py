"""Audit of 3D asset files: whether an engine imports them as they are, and what to do if not."""

from ..engines import ENGINES, Engine
from .audit import Audit, audit
from .finding import Finding

__all__ = ["ENGINES", "Audit", "Engine", "Finding", "audit"]
