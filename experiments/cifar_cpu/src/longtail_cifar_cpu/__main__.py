"""Build the kernels: ``python -m longtail_cifar_cpu``."""

import sys

from longtail_cifar_cpu.build import BuildError, build, library

if __name__ == "__main__":
    try:
        print(f"kernels of acceleration='native': {build()}")
        library()
    except BuildError as error:
        sys.exit(f"longtail_cifar_cpu: {error}")
