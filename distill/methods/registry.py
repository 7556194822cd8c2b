"""Registry of the distillation methods."""

from __future__ import annotations

from steindreamer.registry import Registry

from .asd import ASDConfig
from .base import MethodConfig
from .bridge import BridgeConfig
from .cfd import CFDConfig
from .collaborative import CollaborativeConfig
from .csd import CSDConfig
from .ism import ISMConfig
from .nfsd import NFSDConfig
from .sdi import SDIConfig
from .sds import SDSConfig
from .ssd import SSDConfig
from .vsd import VSDConfig

METHODS: Registry[type[MethodConfig]] = Registry(
    "method",
    {
        "sds": SDSConfig,
        "ssd": SSDConfig,
        "vsd": VSDConfig,
        "csd": CSDConfig,
        "nfsd": NFSDConfig,
        "bridge": BridgeConfig,
        "asd": ASDConfig,
        "ism": ISMConfig,
        "sdi": SDIConfig,
        "cfd": CFDConfig,
        "collaborative": CollaborativeConfig,
    },
)
"""Distillation methods by name: dataclasses that extend `MethodConfig`."""

register_method = METHODS.register
list_methods = METHODS.names
