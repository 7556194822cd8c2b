"""The top-level folders install as one package, `steindreamer` (see CONTRIBUTING.md)."""

from setuptools import find_packages, setup

FOLDERS = ("representations", "distill", "pipelines", "configs", "world", "training", "assets")

PACKAGES = [
    f"steindreamer.{package}"
    for folder in FOLDERS
    for package in (folder, *(f"{folder}.{child}" for child in find_packages(folder)))
]

setup(
    packages=["steindreamer", *PACKAGES],
    package_dir={"steindreamer": "steindreamer", **{f"steindreamer.{folder}": folder for folder in FOLDERS}},
    package_data={
        "": ["py.typed"],
        "steindreamer.pipelines.pages": ["viewer/*.js", "viewer/*.css"],
        "steindreamer.configs": ["*.yaml", "*.json"],
        "steindreamer.assets": ["**/*.safetensors", "**/*.json", "**/*.md", "*/*.jpg"],
    },
)
