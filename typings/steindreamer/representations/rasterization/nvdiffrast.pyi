from representations.rasterization.nvdiffrast import *
