"""A real one-node Kubernetes on this machine for tests, without a virtual machine, Docker or a registry.

`python -m cluster up`, with this folder's parent on the module path. Needs only Python's standard library; everything
it makes lies below one folder (places.py). Nothing here knows lorajob, but for the image that image.py builds.
"""
