"""Parts of an OCI image, written without a daemon: layers, what they stand on, manifests, the archive of them."""
