from distill.view_prompts import *
