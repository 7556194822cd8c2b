from representations.fields.radiance import *
