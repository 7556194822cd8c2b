"""Importing this module, before torch and numba, lets idle OpenMP threads sleep instead of spin.

Threads that spin at a barrier take the cores from the others: two processes with parallel kernels on the same cores
slow each other down severely. OpenMP reads OMP_WAIT_POLICY when its library is loaded, with torch at the latest; a
value that is set already stays.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
