"""An installation as bundles see it."""

from __future__ import annotations

import shutil
from pathlib import Path

from banger.bundle.contents import BundleInput
from banger.bundle.export import push_bundle
from banger.bundle.source import BundleImageSource
from banger.config import Config
from banger.core.operation import Operation
from banger.core.ports import BuiltImage, ImageRequest
from banger.layout import Layout


class Machine:
    """One installation, as far as images go."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout.from_environment({"BANGER_HOME": str(root)})
        self.layout.make_directories()
        self.config = Config.load(self.layout.config_file, {})
        self.source = BundleImageSource(self.layout, self.config, {})
        self.staging = self.layout.staging / "image"
        self.operation = Operation("image.pull", "x")

    def pull(self, reference: str) -> BuiltImage:
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir()
        request = ImageRequest(reference)
        assert self.source.handles(request)
        resolved = self.source.resolve(request, self.operation)
        return self.source.build(resolved, self.staging, self.operation)

    def push(self, source: BundleInput, reference: str, operation: Operation | None = None) -> str:
        operation = operation or Operation("image.push", "x")
        return push_bundle(self.layout, self.config, source, reference, operation=operation)
