"""What pyproject.toml cannot say: the kernels are compiled for the processor at hand.

SIDREC_MARCH names another, for an image that runs elsewhere (x86-64-v3, x86-64-v4, …).
"""

import os

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "service.engine.torch.native._kernels",
            ["service/engine/torch/native/kernels.cpp"],
            language="c++",
            # OpenMP is not linked: the one that torch has loaded shall serve.
            extra_compile_args=[
                *("-std=c++17", "-O3", "-fopenmp", "-g0"),
                f"-march={os.environ.get('SIDREC_MARCH', 'native')}",
            ],
            optional=True,
        )
    ]
)
