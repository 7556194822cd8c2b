from distill.json_files import *
