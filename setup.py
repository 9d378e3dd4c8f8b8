"""What pyproject cannot say: the job notebooks and the app ship inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["mlworkbench*"]),
        "mlworkbench.jobs",
        "mlworkbench.starter",
        "mlworkbench.apps",
        "mlworkbench.apps.views",
    ],
    package_dir={
        "mlworkbench.jobs": "nbs/jobs",
        "mlworkbench.starter": "nbs/_starter",
        "mlworkbench.apps": "apps",
        "mlworkbench.apps.views": "apps/views",
    },
    package_data={
        "mlworkbench.jobs": ["*.ipynb"],
        "mlworkbench.starter": ["*.ipynb"],
        "mlworkbench.apps": ["*.py", "*.toml"],
        "mlworkbench.apps.views": ["*.py"],
    },
)
