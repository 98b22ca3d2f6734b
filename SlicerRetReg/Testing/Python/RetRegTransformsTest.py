"""Run by CTest inside Slicer: transform nodes move points as the library says they do."""

from __future__ import annotations

import unittest

import numpy as np
import slicer

from retreg.fitting import fit
from retreg.transforms import Transform
from RetRegLib.scene.nodes import flipped
from RetRegLib.scene.transform_nodes import transform_node, transform_of


class RetRegTransformsTest(unittest.TestCase):
    """Fits of each family on the same points, as nodes of the application's scene."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        random = np.random.default_rng(7)
        self.fixed = random.uniform(-60, 60, (30, 3))
        self.moving = self.fixed @ np.diag([1.1, 0.9, 1.0]) + random.normal(5, 2, (30, 3))

    def test_a_linear_node_maps_fixed_to_moving_points(self) -> None:
        self.check(fit("affine", self.fixed, self.moving), "vtkMRMLLinearTransformNode")

    def test_a_spline_node_maps_fixed_to_moving_points(self) -> None:
        self.check(fit("tps", self.fixed, self.moving, smoothing=0.1), "vtkMRMLTransformNode")

    def check(self, transform: Transform, node_class: str) -> None:
        """The node's transform from parent, the library, and the node read back agree."""
        node = transform_node(transform, "RetReg test", slicer.mrmlScene)
        assert node.GetClassName() == node_class
        from_parent = node.GetTransformFromParent()
        by_node = np.array([from_parent.TransformPoint(point) for point in flipped(self.fixed)])
        np.testing.assert_allclose(flipped(by_node), transform(self.fixed), atol=1e-6)
        np.testing.assert_allclose(transform_of(node)(self.fixed), transform(self.fixed), atol=1e-6)
