from distill.camera_features import *
