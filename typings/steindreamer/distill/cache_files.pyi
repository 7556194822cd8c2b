from distill.cache_files import *
