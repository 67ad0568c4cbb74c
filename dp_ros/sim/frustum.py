"""Frustum culling: the geoms that a camera cannot see, found before they are drawn.

A mesh behind the camera costs as much as one in front of it, because each of its vertices is transformed and lit. The
test errs on the side of drawing, so that pictures with and without it are equal, bit by bit.
"""

from __future__ import annotations

import contextlib

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MIN_FACES = 500  # smaller meshes are drawn about as fast as their hulls are tested
_MARGIN = 1e-3  # of the scene's extent: MuJoCo draws in single precision


class FrustumCulling:
    """Bounding spheres of a model's geoms and hulls of its large meshes, tested against the frustum of a camera.

    Never culled: planes, which may be infinite, and reflective boxes, because MuJoCo draws the first reflective geom of
    a scene in a way of its own. What is no geom of the model (sites, tendons, skins, flexes) is not tested here.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        kind, material = model.geom_type, model.geom_matid
        reflects = np.zeros(model.ngeom, bool)
        reflects[material >= 0] = model.mat_reflectance[material[material >= 0]] > 0
        self._may_hide: Mask = (kind != mujoco.mjtGeom.mjGEOM_PLANE) & ~(
            (kind == mujoco.mjtGeom.mjGEOM_BOX) & reflects
        )
        self._margin_m = _MARGIN * model.stat.extent
        is_large = kind == mujoco.mjtGeom.mjGEOM_MESH
        is_large[is_large] = model.mesh_facenum[model.geom_dataid[is_large]] >= _MIN_FACES
        mesh_of = {int(geom): int(model.geom_dataid[geom]) for geom in np.flatnonzero(is_large)}
        hulls = {mesh: _hull(model, mesh) for mesh in set(mesh_of.values())}
        self._hulls = {geom: hulls[mesh] for geom, mesh in mesh_of.items()}  # geom -> (3, n) in its frame

    def hidden(self, data: mujoco.MjData, camera: mujoco.MjvGLCamera, aspect: float) -> Mask:
        """Geoms (ngeom,) outside the camera's frustum; `aspect` is the picture's width by its height."""
        if camera.orthographic:
            return np.zeros(self._model.ngeom, bool)
        normals = _outward_normals(camera, aspect)  # (5, 3)
        out_m = (data.geom_xpos - camera.pos) @ normals.T - self._margin_m  # (ngeom, 5)
        hidden: Mask = (out_m > self._model.geom_rbound[:, None]).any(1) & self._may_hide
        is_certain = hidden | (out_m < 0).all(
            1
        )  # of the rest, the centre is outside, but not all of the sphere
        for geom, hull in self._hulls.items():
            if not is_certain[geom]:
                turned = normals @ data.geom_xmat[geom].reshape(3, 3)
                hidden[geom] = ((turned @ hull).min(1) + out_m[geom] > 0).any()
        return hidden


def _outward_normals(camera: mujoco.MjvGLCamera, aspect: float) -> Array:
    """Unit normals (5, 3), world frame, of the planes through the eye that bound what it sees; the first is behind it.

    Near and far plane are left out: they hide little.
    """
    half = camera.frustum_width or 0.5 * aspect * (camera.frustum_top - camera.frustum_bottom)
    near, centre = camera.frustum_near, camera.frustum_center
    in_camera = np.array(  # along right, up and forward
        [
            (0.0, 0.0, -1.0),
            (near, 0.0, -(centre + half)),
            (-near, 0.0, centre - half),
            (0.0, near, -camera.frustum_top),
            (0.0, -near, camera.frustum_bottom),
        ]
    )
    in_camera /= np.sqrt((in_camera**2).sum(1, keepdims=True))
    (x, y, z), (i, j, k) = forward, up = camera.forward.tolist(), camera.up.tolist()
    right = [y * k - z * j, z * i - x * k, x * j - y * i]
    normals: Array = in_camera @ np.array([right, up, forward])
    return normals


def _hull(model: mujoco.MjModel, mesh: int) -> Array:
    """Vertices (3, n) of a mesh's convex hull: all lie outside a plane if the whole mesh does."""
    vertices: Array = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]].astype(float)
    with contextlib.suppress(QhullError):  # flat: all vertices
        vertices = vertices[ConvexHull(vertices).vertices]
    return np.ascontiguousarray(vertices.T)
