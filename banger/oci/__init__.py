"""OCI registries: references, transport, manifests, the blob store and the image source built from them."""
