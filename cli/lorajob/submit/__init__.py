"""From a resolved spec to a run on a cluster: the dataset, the preview, the manifests, and creating them."""
