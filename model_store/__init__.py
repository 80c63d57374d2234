"""Makes and keeps models: semantic IDs, bundles, and the pipeline that builds them."""

from model_store.bundle import Bundle
from model_store.errors import BuildError, BundleError, ModelStoreError, SidError, StoreError

__all__ = ["BuildError", "Bundle", "BundleError", "ModelStoreError", "SidError", "StoreError"]
