from representations.fields.blob import *
